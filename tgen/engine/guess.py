"""Guessing ahead: a row reads guesses of its next ids along with its last id, and the step's logits show which of them are right.

The sampler draws position by position as without guesses. It stops at the first token that is not the guess, and the cache forgets what
follows. So a right guess saves a step, and the text is the one that is written without guesses.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence

from tgen.sampling.candidates import Candidates

# The most ids that a row guesses in one step.
MOST = 16
# Earlier guesses count half as much after this many newer ones.
MEMORY = 24
# While guessing does not pay, one of this many opportunities is used to see whether it pays again.
PROBE = 16
# Runs of ids of these lengths are looked up, the longest first.
LENGTHS = (4, 3, 2)


def cost(ids: int) -> float:
    """How long a pass over `ids` ids takes on a CPU, measured in passes over one id.

    The second id adds the most: a product of a matrix and a vector becomes one of two matrices. Some 16 further ids take as long to
    compute as the weights take to read.
    """
    return 1.0 if ids == 1 else 1.25 + ids / 16


class Pace:
    """How many ids to guess at once, from how often earlier guesses were right. Only counts decide, no clock, so a run can be repeated."""

    def __init__(self, price: float = 0.0) -> None:
        """`price` is what one guess costs to make, measured in steps."""
        self._price = price
        self._right, self._tried = 1.0, 2.0
        self._skipped = 0

    def most(self, rows: int) -> int:
        """The number of guesses with which a step of `rows` rows that decode yields the most tokens in its time; 0 if none pay."""
        share = self._right / self._tried
        best, fastest, expected, chance = 0, rows / cost(rows), float(rows), 1.0
        for count in range(1, MOST + 1):
            chance *= share
            expected += chance
            speed = expected / (cost(rows + count) + count * self._price)
            if speed > fastest:
                best, fastest = count, speed
        if best:
            return best
        self._skipped += 1
        return int(self._skipped > PROBE)

    def learn(self, offered: int, right: int) -> None:
        """Take how many guesses a step had, and how many of them were right before the first wrong one."""
        self._right += right
        self._tried += right
        if right < offered:
            self._tried += 1
            self._skipped = 0
        if self._tried > MEMORY:
            self._right, self._tried = self._right / 2, self._tried / 2


class Guesses:
    """The guesses of one sample: `offered` are those of the next step, `confirmed` the right ones of the last.

    `made` and `right` count the guesses of all steps so far.
    """

    def __init__(self, ids: Sequence[int], new: int) -> None:
        """`ids` are what the sample continues, by `new` tokens at most."""
        self.ids = list(ids)
        self.offered: list[int] = []
        self.confirmed: list[int] = []
        self.made = self.right = 0
        self._end = len(ids) + new

    @property
    def room(self) -> int:
        """How many guesses can be of use: the token after them must still belong to the sample."""
        return max(0, self._end - len(self.ids) - 1)

    def offer(self, rows: int) -> None:
        """Make the guesses of the next step, in which `rows` rows decode."""

    def proposal(self, place: int) -> Candidates | None:
        """The distribution from which the guess at this place was drawn; None for a guess that was not drawn."""
        del place
        return None

    def take(self, tokens: Sequence[int]) -> int:
        """Take the tokens that a step drew: right guesses, then one more. Returns how many guesses were wrong."""
        offered, right = len(self.offered), len(tokens) - 1
        self.made += offered
        self.right += right
        if offered:
            self._learn(offered, right)
        self.ids += tokens
        self.offered, self.confirmed = [], self.offered[:right]
        return offered - right

    def _learn(self, offered: int, right: int) -> None:
        """Remember how many of the guesses were right."""


Runs = dict[tuple[int, ...], int]


def find_runs(ids: Sequence[int], start: int = 1) -> Runs:
    """Where the latest occurrence of each run ends, among those that end at `start` or later and have an id after them."""
    runs: Runs = {}
    for length in LENGTHS:
        first = max(length, start)
        shifted = [ids[first - length + place :] for place in range(length)]
        runs.update(zip(zip(*shifted, strict=False), range(first, len(ids)), strict=False))
    return runs


class Lookup(Guesses):
    """Guesses that what followed the last few ids earlier, in the prompt or in the text, follows them again."""

    def __init__(self, ids: Sequence[int], new: int, runs: Runs) -> None:
        """`runs` are those of the ids; the samples of a request share them."""
        super().__init__(ids, new)
        self._latest: ChainMap[tuple[int, ...], int] = ChainMap({}, runs)
        self._paces = {length: Pace() for length in LENGTHS}  # a longer run is the better sign
        self._length = 0

    def offer(self, rows: int) -> None:
        self.offered = []
        for length in LENGTHS:
            end = self._latest.get(tuple(self.ids[-length:])) if len(self.ids) >= length else None
            if end is not None:
                self._length = length
                for place in range(end, end + min(self._paces[length].most(rows), self.room)):
                    known = place - len(self.ids)
                    self.offered.append(self.ids[place] if known < 0 else self.offered[known])
                return

    def take(self, tokens: Sequence[int]) -> int:
        first = len(self.ids)
        wrong = super().take(tokens)
        self._latest.update(find_runs(self.ids, first))
        return wrong

    def _learn(self, offered: int, right: int) -> None:
        self._paces[self._length].learn(offered, right)
