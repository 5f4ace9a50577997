"""The shortest way to the end of a constrained text, searched byte by byte. Knows matchers and JSON's signs, no model and no logits.

A plan is a certificate: bytes that were seen to end the text. However good or bad the search is, a plan that it returns is true.
The search counts its work, never seconds, so that the same text comes out on a slow machine.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tgen.constraint.grammar import Matcher
from tgen.constraint.spelling import Spelling

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
FIRST_TAILS, LAST_TAILS, MOST_ENDS = 12, 36, 64
# To look at a node is as much work as to check so many texts, a long one counting once more for so many bytes, or to spell so many bytes.
NODE, CHECKED = 16, 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a JSON text one is: `length` bytes into a string or `number` bytes into a number. Outside JSON it only has a length."""

    json: bool = True
    string: bool = False
    escaped: bool = False
    name: bool = False
    written: bytes = b""
    objects: tuple[bool, ...] = ()
    number: int = 0
    point: bool = False
    length: int = 0

    def after(self, text: bytes) -> Place:
        """Where one is when this was written, too."""
        if not self.json:
            return Place(False, length=self.length + len(text))
        string, escaped, name, written = self.string, self.escaped, self.name, self.written
        objects, number, point, length = list(self.objects), self.number, self.point, self.length
        for byte in text:
            if string:
                if not escaped and byte == 0x22:
                    string = False
                written += bytes([byte]) if name else b""
                length += 1
                escaped = not escaped and byte == 0x5C
                continue
            if byte in b"0123456789+-.eE" and (number or byte in b"-0123456789"):
                number, point = number + 1, point or byte in b".eE"
                continue
            number, point = 0, False
            if byte == 0x22:
                string, written, length = True, b"", 0
            elif byte in OPEN:
                objects.append(byte == 0x7B)
                name = byte == 0x7B
            elif byte in CLOSE and objects:
                objects.pop()
            elif byte == 0x2C:
                name = bool(objects and objects[-1])
            elif byte == 0x3A:
                name = False
        return Place(True, string, escaped, name, written, tuple(objects), number, point, length)


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
    """How many nodes' work a search may be: without a plan; after one that costs too much; after one that will do.

    `seconds` ends a search that has no plan that will do, where that is an error: a clock may refuse, but it must not decide what is
    written. Such a search starts with the way that never turns.
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
        # How much work the last search was, in NODEs' parts.
        self.work = 0
        self._starts = {name[:end] for name in quoted for end in range(1, len(name) + 1)}
        self._examples = sorted((text.encode() for text in examples), key=_by_length)
        self._stride = 1 + max(map(len, self._examples), default=0) // MOST_ENDS
        parts = {text[start:] for text in self._examples for start in range(0, len(text), 1 + len(text) // MOST_ENDS)}
        self._ends = sorted(parts, key=_by_length)
        self._costs: dict[bytes, Sequence[int]] = {}

    def plan(self, matcher: Matcher, place: Place, enough: int, effort: Effort, known: Plan = EMPTY) -> Plan | None:
        """The cheapest plan found from here, None if none was. The matcher stays as it is.

        `enough` is what a plan may cost. `known` is one that was true a little earlier: ends of it are often ends of this one.
        """
        tails, clock = _tails(known), time.monotonic()
        self.work = 0
        best = self._straight(matcher, place, NODE * effort.nodes // 2) if effort.seconds < math.inf else None
        start, last = self.work, NODE * (effort.nodes if best is None else effort.cheaper)
        heap = [(0.0, 0, _Branch(matcher.copy(), b"", place, 0.0, (b"",)), 0)]
        number = 0
        while heap and self.work - start < last:
            if (best is None or best.cost > enough) and time.monotonic() - clock >= effort.seconds:
                break
            _, _, branch, rank = heapq.heappop(heap)
            if best is not None and len(branch.text) >= len(best.text) + SLACK:
                continue
            ended, costs, next_branch = self._visit(branch, rank, tails, known)
            if ended is not None and (best is None or len(ended) < len(best.text) + SLACK):
                plan = self._spelled(ended, costs)
                best = plan if best is None or plan.cost < best.cost else best
                last = min(last, self.work - start + NODE * (effort.better if best.cost <= enough else effort.cheaper))
            if rank + 1 < len(branch.choices):
                heapq.heappush(heap, (branch.score(rank + 1), number + 1, branch, rank + 1))
            if next_branch is not None and next_branch.choices and len(next_branch.text) < LONGEST:
                heapq.heappush(heap, (next_branch.score(0), number + 2, next_branch, 0))
            number += 2
        return best

    def _straight(self, matcher: Matcher, place: Place, most: int) -> Plan | None:
        """The way that never turns: where the shortest text is long, a search tries all turns near its start before it sees the end."""
        branch = _Branch(matcher.copy(), b"", place, 0.0, (b"",))
        while len(branch.text) < LONGEST and len(branch.place.objects) < DEEPEST and self.work < most:
            ended, costs, next_branch = self._visit(replace(branch, choices=branch.choices[:1]), 0, (), EMPTY)
            if ended is not None:
                return self._spelled(ended, costs)
            if next_branch is None or not next_branch.choices:
                break
            branch = next_branch
        return None

    def _costs_of(self, end: bytes) -> Sequence[int]:
        """The costs of a text's last bytes. Those of examples are kept, and no work: what a sample may spend is not another's business."""
        example = next((text for text in self._examples if text.endswith(end)), b"") if len(end) >= MOST_ENDS else b""
        if not example:
            return (0,)
        if example not in self._costs:
            self._costs[example] = self.spelling.costs(example)
        return self._costs[example][len(example) - len(end) :]

    def _spelled(self, text: bytes, costs: Sequence[int]) -> Plan:
        """A plan of a text, the costs of whose last suffixes are known."""
        self.work += len(text) + 1 - len(costs)
        return Plan(text, tuple(self.spelling.costs(text, costs)))

    def _visit(self, branch: _Branch, rank: int, tails: Sequence[int], known: Plan) -> tuple[bytes | None, Sequence[int], _Branch | None]:
        """Take a choice and all that must follow: a text that ends, with the costs of its last suffixes, and where to go on.

        The last choice takes the branch's own matcher: a copy is as large as all that was written.
        """
        matcher = branch.matcher.copy() if rank + 1 < len(branch.choices) else branch.matcher
        text, place = branch.text, branch.place
        self.work += NODE
        for step in (branch.choices[rank], None):
            step = matcher.forced() if step is None else step
            if step:
                if not matcher.take(step):
                    return None, (), None
                text, place = text + step, place.after(step)
            if matcher.accepting:
                return text, self._costs_of(step), None
        offer = self._offer(matcher)
        choices = [bytes([byte]) for byte in self._choices(offer, place)]
        helpful = self._helpful(matcher, offer, place, not branch.text or len(text) < self._stride)
        found = _Branch(matcher, text, place, branch.turn(rank), [*helpful, *choices])
        # The shortest end of the known plan that ends this text.
        for start in tails:
            if known.text[start] in offer.allowed:
                self.work += 1 + (len(known.text) - start) // CHECKED
                if matcher.ends(known.text[start:]):
                    return text + known.text[start:], known.costs[start:], found
        return None, (), found

    def _helpful(self, matcher: Matcher, offer: _Offer, place: Place, all_ends: bool) -> list[bytes]:
        """Ends of examples that fit where nothing can end yet, shortest first.

        Tried are whole examples, and what is left of them at this length; near the start of a search, where somebody else has
        written a part, the other ends, too.
        """
        if not self._examples or (place.json and offer.allowed & (QUOTE if place.string else STOPS)):
            return []
        length = place.length if place.string or not place.json else place.number
        rests = [text[length:] for text in self._examples if len(text) > length]
        ends = sorted({*(self._ends if all_ends else ()), *self._examples, *rests}, key=_by_length)
        ends = [end for end in ends if end[0] in offer.allowed]
        self.work += sum(1 + len(end) // CHECKED for end in ends)
        return [end for end in ends if self._helps(matcher, end, place)]

    def _helps(self, matcher: Matcher, end: bytes, place: Place) -> bool:
        """Whether an end of an example fits; a number must be over after it, where a string's quote says so itself."""
        if not place.json:
            return matcher.ends(end)
        if not matcher.fits(end):
            return False
        if place.string:
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


def _by_length(text: bytes) -> tuple[int, bytes]:
    return len(text), text


def _tails(known: Plan) -> Sequence[int]:
    """Where a plan can be joined: at JSON's signs, of many the first and the last, the shortest ends first; and at its start."""
    text = known.text
    places = [i for i in range(1, len(text)) if text[i] in BORDERS or text[i - 1] in BORDERS]
    if len(places) > FIRST_TAILS + LAST_TAILS:
        places = places[:FIRST_TAILS] + places[-LAST_TAILS:]
    return [*reversed(places), 0] if text else ()
