"""How many ids of prompts a step reads beside the rows that decode, so that their next tokens do not come much later."""

from __future__ import annotations

# Where the clock does not decide, a step reads this many ids, and two more for each row that decodes: a pass over few ids spends its time
# on reading the weights, which takes as long as computing some 16 ids.
USUAL = 16
# Where it does, the sizes are the powers of two up to this one, and the first steps read 2 ** FIRST ids.
MOST, FIRST = 8, 3
# A step with prompts may take this many times what a step without them takes.
LIMIT = 2.0
# One step counts this much for what steps of its size take. A step that took more than HELD_UP times what was expected was held up by
# something else, and counts as that much.
WEIGHT, HELD_UP = 0.25, 2.0
# Beyond the limit, too, a step reads twice as many ids if it takes less than ALIKE times as long: the first further ids can cost the most,
# because one row alone has a faster kernel.
ALIKE = 1.15
# A step without prompts counts as taking at least this share of any other, in case none was seen, or none since the machine became slower.
SURELY = 0.4
# After this many steps of one size, the pace forgets what the next larger one took, because that may have changed.
FORGET = 100
# Several prompts may read more, up to so many times as much: their first tokens are waited for, too, and rows gain by decoding together.
CROWD = 16
# Where prompts outnumber the rows that decode, a step may take so many seconds for their sake.
PATIENCE = 0.25


class Pace:
    """Doubles and halves the number of ids, by the times of the last steps of each size."""

    def __init__(self, *, measured: bool) -> None:
        """`measured` says whether the pace may follow the clock: only if a text does not depend on how its prompt was cut."""
        self._measured = measured
        self._size = FIRST  # the logarithm of the number of ids
        self._seconds: dict[int, float] = {}  # by size
        self._plain = 0.0  # seconds of a step without prompts
        self._stayed = 0  # steps since the size changed

    def learn(self, further: int, seconds: float) -> None:
        """Take the time of a step; `further` is how many ids it read besides one for each row that decodes, 0 if it read no prompt."""
        if not further:
            self._plain = _moved(self._plain or seconds, seconds)
            return
        size = further.bit_length() - 1
        if further != 2**size:  # the end of a prompt
            return
        expected = self._seconds.get(size) or 2 * (self._plain or seconds)
        self._seconds[size] = _moved(expected, seconds) if size in self._seconds else min(seconds, HELD_UP * expected)
        if size == self._size:
            self._choose()

    def beside(self, decoding: int, prompts: int = 1, guesses: int = 0) -> int:
        """How many ids of so many prompts a step reads beside this many rows that decode, and so many guesses; at least one.

        Where prompts outnumber the rows, each reads more, in the ratio of the two: fewer wait for a next token than for a first one, and a
        crowd that came at once is soon a whole batch.
        """
        crowd = min(CROWD, max(1, prompts))
        if not self._measured:
            return crowd * (USUAL + 2 * decoding)
        usual = crowd << self._size
        patient = min(usual * prompts // max(1, decoding), int(PATIENCE * self._speed()))
        return max(1, usual - guesses, patient - guesses)

    def _speed(self) -> float:
        """Ids a second in steps of this size; 0 if there was none yet."""
        return 2**self._size / self._seconds[self._size] if self._size in self._seconds else 0.0

    def _choose(self) -> None:
        """Take the next larger or smaller size, if that is better."""
        size, taken = self._size, self._seconds[self._size]
        plain = max(self._plain, SURELY * min(self._seconds.values()))
        # If it was not seen yet, twice as many ids add twice as much at most, and half as many half as much at least.
        larger = self._seconds.get(size + 1, 2 * taken - plain)
        smaller = self._seconds.get(size - 1, (taken + plain) / 2)
        self._stayed += 1
        if self._stayed == FORGET:
            self._seconds.pop(size + 1, None)
            self._stayed = 0
        if size < MOST and larger <= max(LIMIT * plain, ALIKE * taken):
            self._size, self._stayed = size + 1, 0
        elif size > 0 and taken > LIMIT * plain and ALIKE * smaller < taken:
            self._size, self._stayed = size - 1, 0


def _moved(known: float, seconds: float) -> float:
    """The average after one more time."""
    return known + WEIGHT * (min(seconds, HELD_UP * known) - known)
