"""How many ids of prompts a step reads beside the rows that decode, so that their next tokens do not come much later."""

from __future__ import annotations

# Where the clock does not decide, a step reads this many ids, and two more for each row that decodes: a pass over few ids spends its time
# on reading the weights, which takes as long as computing some 16 ids.
USUAL = 16
# Where the clock decides, the sizes are the powers of two up to 2 ** MOST, and the first steps read 2 ** FIRST ids.
MOST, FIRST = 8, 3
# A step with prompts may take this many times as long as a step without them.
LIMIT = 2.0
# The weight of one step in the average of its size. A step that took more than HELD_UP times as long as expected was held up by
# something else: it counts as HELD_UP times.
WEIGHT, HELD_UP = 0.25, 2.0
# Even beyond the limit, a step reads twice as many ids if it then takes at most ALIKE times as long: the first ids of a prompt can cost
# the most, because a single row has a faster kernel.
ALIKE = 1.15
# A step without prompts counts as taking at least this share of the fastest step with them: perhaps none was seen, or none since the
# machine became slower.
SURELY = 0.4
# After this many steps of one size, the pace forgets how long the next larger size took, because that may have changed.
FORGET = 100
# A step may read more of several prompts, up to this many times as much: users wait for first tokens, too, and rows decode faster together.
CROWD = 16
# Where prompts outnumber the rows that decode, a step may take this many seconds for their sake.
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
        """How many ids of `prompts` prompts a step reads beside `decoding` rows that decode and their `guesses`; at least one.

        Where prompts outnumber the rows, a step reads more, in the ratio of the two: more users wait for a first token than for a next one,
        and prompts that came together soon decode together.
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
        # For a size that was not seen yet: twice as many ids add at most twice as much time, half as many at least half as much.
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
    """The moving average after one more measurement."""
    return known + WEIGHT * (min(seconds, HELD_UP * known) - known)
