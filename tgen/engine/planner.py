"""The shortest way to the end of a constrained text, searched byte by byte. Knows matchers and JSON's signs, no model and no logits.

A plan is a certificate: bytes that were seen to end the text. However good or bad the search is, a plan that it returns is true.
The search counts nodes, never seconds, so that the same text comes out on a slow machine.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgen.engine.grammar import Matcher
from tgen.text.spelling import Spelling

OPEN, CLOSE = frozenset(b"{["), frozenset(b"}]")
# Outside a JSON string: what ends something first, what starts something large last.
ORDER = b'}],:0123456789"ntf[{-'
RANK = {byte: rank for rank, byte in enumerate(ORDER)}
QUOTE, STOPS = frozenset(b'"'), frozenset(b",]}")
BORDERS = frozenset(b',:[{}]"')
# In a string, or without JSON, two of each of these stand for their kind where many are allowed; of all other bytes each is tried.
KINDS = (b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", bytes(range(0x80, 0xC0)), bytes(range(0xC0, 0x100)))
FEW = 12
# A plan may be this many bytes long; a detour costs as much as this many bytes on the way would.
LONGEST = 8192
# A way that goes as deep as this without a turn has no end.
DEEPEST = 64
# More bytes than the best plan has may be fewer tokens, but not many more.
SLACK = 6
BYTE, DETOUR, DEPTH = 0.02, 4.0, 4.0
MOST_TAILS, MOST_ENDS = 48, 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a JSON text one is. Outside JSON it says nothing."""

    json: bool = True
    string: bool = False
    escaped: bool = False
    name: bool = False
    written: bytes = b""
    objects: tuple[bool, ...] = ()
    number: int = 0
    point: bool = False

    def after(self, text: bytes) -> Place:
        """Where one is when this was written, too."""
        if not self.json:
            return self
        string, escaped, name, written = self.string, self.escaped, self.name, self.written
        objects, number, point = list(self.objects), self.number, self.point
        for byte in text:
            if string:
                if not escaped and byte == 0x22:
                    string = False
                written += bytes([byte]) if name else b""
                escaped = not escaped and byte == 0x5C
                continue
            if byte in b"0123456789+-.eE" and (number or byte in b"-0123456789"):
                number, point = number + 1, point or byte in b".eE"
                continue
            number, point = 0, False
            if byte == 0x22:
                string, written = True, b""
            elif byte in OPEN:
                objects.append(byte == 0x7B)
                name = byte == 0x7B
            elif byte in CLOSE and objects:
                objects.pop()
            elif byte == 0x2C:
                name = bool(objects and objects[-1])
            elif byte == 0x3A:
                name = False
        return Place(True, string, escaped, name, written, tuple(objects), number, point)


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to the end: its bytes, and for each of its suffixes the fewest tokens that spell it, [len(text) + 1]."""

    text: bytes = b""
    costs: tuple[int, ...] = (0,)

    @property
    def cost(self) -> int:
        return self.costs[0]

    def rest(self, start: int) -> Plan:
        """What is left of it after `start` bytes."""
        return Plan(self.text[start:], self.costs[start:])


EMPTY = Plan()


@dataclass(frozen=True, slots=True)
class Effort:
    """How many nodes a search may look at: without a plan; after one that costs too much; after one that will do.

    `seconds` ends a search that has no plan, where that is an error: a clock may refuse, but it must not decide what is written.
    """

    nodes: int
    cheaper: int
    better: int = 0
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class _Branch:
    """A text that may lead to the end, and what may be taken next, likeliest first. `detours` is what was not likeliest on its way."""

    matcher: Matcher
    text: bytes
    place: Place
    detours: float
    choices: Sequence[bytes]

    def turn(self, rank: int) -> float:
        """The detours when a choice is taken."""
        return self.detours + (DETOUR + 0.25 * rank if rank else 0.0)

    def score(self, rank: int) -> float:
        """How far from the end a choice seems to lead."""
        opens = self.choices[rank][:1] in (b"{", b"[") and not self.place.string
        return self.turn(rank) + BYTE * len(self.text) + DEPTH * (len(self.place.objects) + opens)


@dataclass(frozen=True, slots=True)
class _Offer:
    """Which bytes may come next; of these, those that are a token; these in JSON's order; some of them for a string."""

    allowed: frozenset[int]
    spellable: frozenset[int]
    order: Sequence[int]
    some: Sequence[int]


class Planner:
    """Searches for plans in one grammar and one vocabulary."""

    def __init__(
        self, spelling: Spelling, names: frozenset[str] = frozenset(), examples: frozenset[str] = frozenset(), *, is_json: bool = True
    ) -> None:
        """`names` are property names that may be required: where a name is to be written, these are tried first.

        `examples` are parts of texts that end patterns or lie within bounds; ends of them are tried where nothing can end yet. That a
        pattern is on its way to a match, or a number to a multiple, is not to be seen from what may come next.
        """
        self.spelling = spelling
        self.is_json = is_json
        quoted = [_quoted(name) for name in names]
        self._offers: dict[bytes, _Offer] = {}
        self._starts = {name[:end] for name in quoted for end in range(1, len(name) + 1)}
        texts = [text.encode() for text in examples]
        parts = {text[start:] for text in texts for start in range(0, len(text), 1 + len(text) // MOST_ENDS)}
        self._ends = sorted(parts, key=lambda part: (len(part), part))

    def plan(self, matcher: Matcher, place: Place, enough: int, effort: Effort, known: Plan = EMPTY) -> Plan | None:
        """The cheapest plan found from here, None if none was. The matcher stays as it is.

        `enough` is what a plan may cost. `known` is one that was true a little earlier: ends of it are often ends of this one.
        """
        tails = _tails(known)
        heap = [(0.0, 0, _Branch(matcher, b"", place, 0.0, (b"",)), 0)]
        best: Plan | None = None
        number, seen, last, clock = 0, 0, effort.nodes, time.monotonic()
        while heap and seen < last and (best is not None or time.monotonic() - clock < effort.seconds):
            _, _, branch, rank = heapq.heappop(heap)
            if best is not None and len(branch.text) >= len(best.text) + SLACK:
                continue
            seen += 1
            ended, costs, next_branch = self._visit(branch, rank, tails, known)
            if ended is not None and (best is None or len(ended) < len(best.text) + SLACK):
                plan = Plan(ended, tuple(self.spelling.costs(ended, costs)))
                best = plan if best is None or plan.cost < best.cost else best
                last = min(last, seen + (effort.better if best.cost <= enough else effort.cheaper))
            if rank + 1 < len(branch.choices):
                heapq.heappush(heap, (branch.score(rank + 1), number + 1, branch, rank + 1))
            if next_branch is not None and next_branch.choices and len(next_branch.text) < LONGEST:
                heapq.heappush(heap, (next_branch.score(0), number + 2, next_branch, 0))
            number += 2
        if best is None and effort.seconds < math.inf:
            return self._straight(matcher, place, effort.seconds)
        return best

    def _straight(self, matcher: Matcher, place: Place, seconds: float) -> Plan | None:
        """The way that never turns: where the shortest text is long, a search tries all turns near its start before it sees the end."""
        branch, clock = _Branch(matcher, b"", place, 0.0, (b"",)), time.monotonic()
        while len(branch.text) < LONGEST and len(branch.place.objects) < DEEPEST and time.monotonic() - clock < seconds:
            ended, costs, next_branch = self._visit(branch, 0, (), EMPTY)
            if ended is not None:
                return Plan(ended, tuple(self.spelling.costs(ended, costs)))
            if next_branch is None or not next_branch.choices:
                break
            branch = next_branch
        return None

    def _visit(self, branch: _Branch, rank: int, tails: Sequence[int], known: Plan) -> tuple[bytes | None, Sequence[int], _Branch | None]:
        """Take a choice and all that must follow: a text that ends, with the costs of its last suffixes, and where to go on."""
        matcher, text, place = branch.matcher.copy(), branch.text, branch.place
        for step in (branch.choices[rank], None):
            step = matcher.forced() if step is None else step
            if step:
                if not matcher.take(step):
                    return None, (), None
                text, place = text + step, place.after(step)
            if matcher.accepting:
                return text, (0,), None
        offer = self._offer(matcher)
        choices = [bytes([byte]) for byte in self._choices(offer, place)]
        if not place.json or not offer.allowed & (QUOTE if place.string else STOPS):
            choices = [end for end in self._ends if end[0] in offer.allowed and self._helps(matcher, end, place)] + choices
        found = _Branch(matcher, text, place, branch.turn(rank), choices)
        # The shortest end of the known plan that ends this text.
        for start in tails:
            if known.text[start] in offer.allowed and ends(matcher, known.text[start:]):
                return text + known.text[start:], known.costs[start:], found
        return None, (), found

    def _helps(self, matcher: Matcher, end: bytes, place: Place) -> bool:
        """Whether an end of an example fits; a number must be over after it, where a string's quote says so itself."""
        if not matcher.fits(end):
            return False
        if place.string or not place.json:
            return True
        after = matcher.copy()
        return after.take(end) and bool(self._offer(after).allowed & STOPS)

    def _offer(self, matcher: Matcher) -> _Offer:
        """What may come next; there are few such sets in a grammar, so each is sorted once."""
        mask = matcher.allowed()
        key = mask.tobytes()
        if key not in self._offers:
            allowed = [int(byte) for byte in np.flatnonzero(mask)]
            spellable = [byte for byte in allowed if byte in self.spelling.singles] or allowed
            order = sorted(spellable, key=lambda byte: RANK.get(byte, len(ORDER)))
            self._offers[key] = _Offer(frozenset(allowed), frozenset(spellable), order, _some(spellable))
        return self._offers[key]

    def _choices(self, offer: _Offer, place: Place) -> Sequence[int]:
        """The bytes worth trying, likeliest to lead to the end first."""
        if place.json and not place.string:
            return offer.order
        first = [0x22] if place.json and 0x22 in offer.spellable else []
        if place.name:
            wanted = [byte for byte in sorted(offer.spellable) if place.written + bytes([byte]) in self._starts]
            first = list(dict.fromkeys([*wanted, *first]))
        return [*first, *(byte for byte in offer.some if byte not in first)] if first else offer.some


def _quoted(text: str) -> bytes:
    """As JSON, without the first quote."""
    return json.dumps(text, ensure_ascii=False).encode()[1:]


def _some(allowed: Sequence[int]) -> list[int]:
    """All bytes where they are few; else, of kinds that are there as a whole, only the first."""
    if len(allowed) <= FEW:
        return list(allowed)
    kinds = [[byte for byte in kind if byte in allowed] for kind in KINDS]
    first = [byte for place in (0, 1) for kind in kinds for byte in kind[place : place + 1]]
    skipped = {byte for found, kind in zip(kinds, KINDS, strict=True) if len(found) == len(kind) or kind[0] >= 0x80 for byte in kind}
    return first + [byte for byte in allowed if byte not in skipped and byte not in first]


def ends(matcher: Matcher, text: bytes) -> bool:
    """Whether a text may follow and end there."""
    if not matcher.fits(text):
        return False
    after = matcher.copy()
    return after.take(text) and after.accepting


def _tails(known: Plan) -> Sequence[int]:
    """Where a plan can be joined: at JSON's signs, the last places first, and at its start."""
    text = known.text
    places = [i for i in range(1, len(text)) if text[i] in BORDERS or text[i - 1] in BORDERS]
    return [*reversed(places[-MOST_TAILS:]), 0] if text else ()
