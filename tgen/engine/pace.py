"""How many ids of prompts a step reads beside the rows that decode, so that their next tokens do not come much later."""

from __future__ import annotations

# Where the clock does not decide, a step reads this many ids, and two more for each row that decodes: a pass over few ids spends its time
# on reading the weights, which takes as long as computing some 16 ids.
USUAL = 16
# Where it does, the first steps read this many ids.
FIRST = 4
# The time that a prompt may add to a step, as a share of what it takes without prompts.
EXTRA = 0.75
# Several prompts may add more, up to so many times as much: their first tokens are waited for, too, and rows gain by decoding together.
CROWD = 4
# Each step counts this much less once another is measured.
MEMORY = 0.97
# A step that took this many times what was expected was held up by something else, and counts as that much.
HELD_UP = 3.0
# The steps tell what an id costs only if their sizes differ: by this variance.
VARIANCE = 0.05


class Pace:
    """A line through the times of the last steps: seconds = start + each * ids, by least squares with exponential forgetting."""

    def __init__(self, *, measured: bool) -> None:
        """`measured` says whether the pace may follow the clock: only if a text does not depend on how its prompt was cut."""
        self._measured = measured
        # Weighted sums over the steps: of 1, x, x squared, y, x times y, where x is a step's ids and y its seconds.
        self._sums = [0.0] * 5
        self._each: float | None = None  # seconds, from the last steps whose sizes differed

    def learn(self, ids: int, seconds: float) -> None:
        """Take the time of a step that read this many ids in all rows, prompts included."""
        if self._each is not None:
            seconds = min(seconds, HELD_UP * self._seconds(ids, self._each))
        new = (1, ids, ids * ids, seconds, ids * seconds)
        self._sums = [MEMORY * old + one for old, one in zip(self._sums, new, strict=True)]
        count, x, xx, y, xy = self._sums
        spread = count * xx - x * x
        if spread > VARIANCE * count * count:
            each = (count * xy - x * y) / spread
            self._each = each if each > 0 else self._each

    def beside(self, decoding: int, prompts: int = 1) -> int:
        """How many ids of so many prompts a step reads beside so many rows that decode, at least one."""
        crowd = min(CROWD, max(1, prompts))
        if not self._measured:
            return crowd * (USUAL + 2 * decoding)
        if self._each is None:
            return crowd * FIRST
        return max(1, int(crowd * EXTRA * self._seconds(decoding, self._each) / self._each))

    def _seconds(self, ids: int, each: float) -> float:
        """What a step over this many ids is expected to take, if an id takes `each`."""
        count, x, _, y, _ = self._sums
        return max(y - each * x, 0.0) / count + each * ids
