"""The planner searches for the shortest way to the end of a constrained text, byte by byte.

A plan is a known way to the end: bytes that the grammar has accepted as an ending. A search may miss the shortest plan, but no plan
that it returns is wrong. A search counts its work, not seconds, so that a slow machine writes the same text.
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
from tgen.constraint.place import Place
from tgen.constraint.spelling import Spelling

# Outside a JSON string the bytes that end something come first, those that start something large come last.
RANK = {byte: rank for rank, byte in enumerate(b'}],:0123456789"ntf[{-')}
QUOTE, STOPS, BORDERS = frozenset(b'"'), frozenset(b",]}"), frozenset(b',:[{}]"')
# In a string, and in a text that is not JSON, the search tries two bytes of each kind in place of all.
KINDS = (b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", bytes(range(0x80, 0xC0)), bytes(range(0xC0, 0x100)))
# A search gives up a way that is longer than this many bytes: the time for each byte grows with the length.
LONGEST = 8192
# A turn off the likeliest way, and an open bracket, each count as much as this many bytes.
DETOUR = 200
# A plan that has this many more bytes than another may still have fewer tokens.
SLACK = 6
# A search tries to join at most this many ends of an older plan, and this many ends of an example.
MOST_TAILS, MOST_ENDS = 48, 64
# A search counts 1 for each text that it checks and for each byte that it spells, and this much for each node that it visits.
NODE = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """The bytes of a way to the end, and for each of its suffixes the fewest tokens that spell it, [len(text) + 1]."""

    text: bytes = b""
    costs: tuple[int, ...] = (0,)

    @property
    def cost(self) -> int:
        """How many tokens the plan takes."""
        return self.costs[0]

    def rest(self, start: int) -> Plan:
        """The plan after its first `start` bytes."""
        return Plan(self.text[start:], self.costs[start:])


EMPTY = Plan()


@dataclass(frozen=True, slots=True)
class Effort:
    """How many nodes a search may visit while it has no plan, and once it has one that costs too much.

    `seconds` end a search that has no plan: the clock may refuse a constraint, but it never decides what is written.
    """

    nodes: int
    cheaper: int
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class _Branch:
    """A text that may lead to the end, and what may follow it, likeliest first. `detours` counts the turns off the likeliest way."""

    matcher: Matcher
    text: bytes
    place: Place
    detours: float
    choices: Sequence[bytes]

    def turn(self, rank: int) -> float:
        """The detours after a choice: one more if it is not the likeliest, and a little more the less likely it is."""
        return self.detours + (1 + rank / 16 if rank else 0)

    def score(self, rank: int) -> float:
        """How far from the end a choice seems to lead."""
        opens = self.choices[rank][:1] in (b"{", b"[") and not self.place.string
        return self.turn(rank) + len(self.place.objects) + opens + len(self.text) / DETOUR


@dataclass(frozen=True, slots=True)
class _Offer:
    """The bytes that may come next; those among them that are tokens; the same in JSON's order; the few of them to try in a string."""

    allowed: frozenset[int]
    spellable: frozenset[int]
    order: Sequence[int]
    some: Sequence[int]


class Planner:
    """Everything that the searches in one grammar and one vocabulary share. Threads may share it: it only remembers pure results."""

    def __init__(
        self, spelling: Spelling, names: frozenset[str] = frozenset(), examples: frozenset[str] = frozenset(), *, is_json: bool = True
    ) -> None:
        """`names` are property names that may be required: a search tries them first where it writes a name.

        `examples` are texts that end a pattern or lie within bounds: a search tries their ends where nothing can end yet. The next bytes
        that a grammar allows do not show whether a pattern is near its match, or a number near a multiple.
        """
        self.spelling = spelling
        self.is_json = is_json
        quoted = [json.dumps(name, ensure_ascii=False).encode()[1:] for name in names]
        self._starts = {name[:end] for name in quoted for end in range(1, len(name) + 1)}
        self.examples = sorted((text.encode() for text in examples), key=_by_length)
        # Of a long example only every n-th end is tried.
        self.ends = {text[start:] for text in self.examples for start in range(0, len(text), 1 + len(text) // MOST_ENDS)}
        self._offers: dict[bytes, _Offer] = {}

    def offer(self, matcher: Matcher) -> _Offer:
        """What may come next. A grammar has few such sets, so each is sorted once."""
        mask = matcher.allowed()
        key = mask.tobytes()
        if key not in self._offers:
            allowed = [int(byte) for byte in np.flatnonzero(mask)]
            spellable = [byte for byte in allowed if byte in self.spelling.singles] or allowed
            order = sorted(spellable, key=lambda byte: RANK.get(byte, len(RANK)))
            self._offers[key] = _Offer(frozenset(allowed), frozenset(spellable), order, _some(spellable))
        return self._offers[key]

    def choices(self, offer: _Offer, place: Place) -> Sequence[int]:
        """The bytes worth trying, likeliest to lead to the end first."""
        if place.json and not place.string:
            return offer.order
        first = [0x22] if place.json and 0x22 in offer.spellable else []
        if place.name:
            wanted = [byte for byte in sorted(offer.spellable) if place.written + bytes([byte]) in self._starts]
            first = list(dict.fromkeys([*wanted, *first]))
        return [*first, *(byte for byte in offer.some if byte not in first)] if first else offer.some


class Search:
    """One search for a plan. `work` is its cost so far, NODE for a node."""

    def __init__(self, planner: Planner, known: Plan = EMPTY) -> None:
        """`known` is a plan from a little earlier: ends of it are often ends of the new one."""
        self._planner = planner
        self._known = known
        self._tails = _tails(known)
        self.work = 0

    def straight(self, matcher: Matcher, place: Place) -> Plan | None:
        """The likeliest way, without a turn; None where it does not end. It is quick, and seldom longer than the shortest."""
        branch = _Branch(matcher.copy(), b"", place, 0, (b"",))
        while len(branch.text) < LONGEST:
            ended, costs, following = self._visit(replace(branch, choices=branch.choices[:1]), 0)
            if ended is not None:
                return self._spelled(ended, costs)
            if following is None or not following.choices:
                break
            branch = following
        return None

    def plan(self, matcher: Matcher, place: Place, enough: int, effort: Effort, best: Plan | None = None) -> Plan | None:
        """The cheapest plan found: the first that costs at most `enough`, else the cheapest, `best` included; None if there is none."""
        clock = time.monotonic()
        start, last = self.work, NODE * (effort.nodes if best is None else effort.cheaper)
        heap = [(0.0, 0, _Branch(matcher.copy(), b"", place, 0, (b"",)), 0)]
        number = 0
        while heap and self.work - start < last and (best is not None or time.monotonic() - clock < effort.seconds):
            _, _, branch, rank = heapq.heappop(heap)
            if best is not None and len(branch.text) >= len(best.text) + SLACK:
                continue
            ended, costs, following = self._visit(branch, rank)
            if ended is not None and (best is None or len(ended) < len(best.text) + SLACK):
                plan = self._spelled(ended, costs)
                best = plan if best is None or plan.cost < best.cost else best
                if best.cost <= enough:
                    break
                last = min(last, self.work - start + NODE * effort.cheaper)
            if rank + 1 < len(branch.choices):
                heapq.heappush(heap, (branch.score(rank + 1), number + 1, branch, rank + 1))
            if following is not None and following.choices and len(following.text) < LONGEST:
                heapq.heappush(heap, (following.score(0), number + 2, following, 0))
            number += 2
        return best

    def _spelled(self, text: bytes, costs: Sequence[int]) -> Plan:
        """A plan of a text, given the costs of its last suffixes."""
        self.work += len(text) + 1 - len(costs)
        return Plan(text, tuple(self._planner.spelling.costs(text, costs)))

    def _visit(self, branch: _Branch, rank: int) -> tuple[bytes | None, Sequence[int], _Branch | None]:
        """Take a choice and all that must follow it. Returns a text that ends, the costs of its last suffixes, and where to go on.

        The last choice takes the branch's own matcher: a copy costs as much as the text is long.
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
                return text, (0,), None
        offer = self._planner.offer(matcher)
        choices = [bytes([byte]) for byte in self._planner.choices(offer, place)]
        helpful = self._helpful(matcher, offer, place, not branch.text)
        following = _Branch(matcher, text, place, branch.turn(rank), [*helpful, *choices])
        for start in self._tails:
            if self._known.text[start] in offer.allowed:
                self.work += 1
                if matcher.ends(self._known.text[start:]):
                    return text + self._known.text[start:], self._known.costs[start:], following
        return None, (), following

    def _helpful(self, matcher: Matcher, offer: _Offer, place: Place, all_ends: bool) -> list[bytes]:
        """Ends of examples that fit where nothing can end yet, shortest first.

        The search tries whole examples, and what each has after the bytes of the string or number so far. With `all_ends`, where a
        search begins, it tries the other ends as well: the model may have written a part in another way.
        """
        planner = self._planner
        if not planner.examples or (place.json and offer.allowed & (QUOTE if place.string else STOPS)):
            return []
        length = place.length if place.string or not place.json else place.number
        rests = [text[length:] for text in planner.examples if len(text) > length]
        ends = {end for end in (*(planner.ends if all_ends else ()), *planner.examples, *rests) if end[0] in offer.allowed}
        self.work += len(ends)
        return [end for end in sorted(ends, key=_by_length) if self._helps(matcher, end, place)]

    def _helps(self, matcher: Matcher, end: bytes, place: Place) -> bool:
        """Whether an end of an example fits. A string's end has its quote; after a number's end the number must be over."""
        if not place.json:
            return matcher.ends(end)
        if not matcher.fits(end):
            return False
        if place.string:
            return True
        after = matcher.copy()
        return after.take(end) and bool(self._planner.offer(after).allowed & STOPS)


def _some(allowed: Sequence[int]) -> list[int]:
    """Two bytes of each kind that is allowed as a whole, and all others."""
    kinds = [[byte for byte in kind if byte in allowed] for kind in KINDS]
    first = [byte for place in (0, 1) for kind in kinds for byte in kind[place : place + 1]]
    skipped = {byte for found, kind in zip(kinds, KINDS, strict=True) if len(found) == len(kind) or kind[0] >= 0x80 for byte in kind}
    return first + [byte for byte in allowed if byte not in skipped and byte not in first]


def _by_length(text: bytes) -> tuple[int, bytes]:
    return len(text), text


def _tails(known: Plan) -> Sequence[int]:
    """Where a search may join a plan: at JSON's signs, the shortest ends first, and at its start."""
    text = known.text
    places = [i for i in range(1, len(text)) if text[i] in BORDERS or text[i - 1] in BORDERS]
    return [*reversed(places[-MOST_TAILS:]), 0] if text else ()
