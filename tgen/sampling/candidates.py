"""The tokens that a step may draw, and their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tgen.arrays import Ids, Logits, Values
from tgen.sampling.logits import BLOCK, FEW, places_from, rough_sums
from tgen.sampling.selection import crossing

# The largest relative error of a sum of float32 weights. Each exponent is rounded three times, and its mean is at most the
# logarithm of the vocabulary; the sum adds its own roundings.
ROUGH = 5e-6

# The highest factor of a difference of two logits that cannot make it infinite. It is 1 / temperature for all but absurd temperatures.
LARGEST_FACTOR = 1e269

LOWEST = float(np.finfo(np.float32).min)


@dataclass(slots=True, eq=False)
class Candidates:
    """The tokens still in play: ids in ascending order, [n], and their logits before temperature, [n]."""

    ids: Ids
    logits: Logits | Values
    temperature: float = 1.0
    _weights: Values | None = None
    _highest: float | None = None
    _sums: Values | None = None

    def at_temperature(self, temperature: float) -> Candidates:
        """The same candidates at another temperature."""
        return self if temperature == self.temperature else Candidates(self.ids, self.logits, temperature, None, self._highest)

    def keep(self, places: Ids) -> Candidates:
        """The candidates at these places, which are in ascending order."""
        if len(places) == len(self.ids):
            return self
        weights = None if self._weights is None else self._weights.take(places)
        # Ids are distinct and ascend: where the last one says so, they are 0, 1, 2 and so on, and equal their places.
        ids = places if self.ids[-1] == len(self.ids) - 1 else self.ids.take(places)
        return Candidates(ids, self.logits.take(places), self.temperature, weights)

    def keep_likelier(self, share: float) -> Candidates:
        """The candidates that are at least `share` times as likely as the likeliest one."""
        if self._weights is None and len(self.ids) >= FEW:
            # A logit is a float32 number. The border is moved down by more than its rounding; weights decide about what is left.
            border = self.highest + self.temperature * (math.log(share) - ROUGH)
            likely = self.keep(places_from(self.logits, max(border - 1e-6 * abs(border), LOWEST)))
            if likely is not self:
                return likely.keep_likelier(share)
        return self.keep((self.weights >= share).nonzero()[0])

    @property
    def exponents(self) -> Values:
        """The natural logarithms of the weights, [n]: 0 for the likeliest token, negative for the others. A new array."""
        # Subtract first: then a tiny temperature leaves the difference of the highest logit 0. Multiplying takes half the time of dividing.
        scaled: Values = np.subtract(self.logits, self.highest, dtype=np.float64)
        scaled *= min(1 / self.temperature, LARGEST_FACTOR)
        return scaled

    def exponent(self, place: int) -> float:
        """The natural logarithm of one candidate's weight."""
        return (float(self.logits[place]) - self.highest) * min(1 / self.temperature, LARGEST_FACTOR)

    @property
    def weights(self) -> Values:
        """Probabilities before they are normalised, [n]: the likeliest token has weight 1."""
        if self._weights is None:
            scaled = self.exponents
            self._weights = np.exp(scaled, out=scaled)
        return self._weights

    @property
    def rough_sums(self) -> Values:
        """The sums of the weights of each BLOCK of candidates, computed in float32. Sums of these have a relative error up to ROUGH."""
        if self._sums is None:
            self._sums = rough_sums(self.logits, self.highest, 1 / self.temperature)
        return self._sums

    def probabilities(self) -> Values:
        """Softmax over the candidates, [n]."""
        shares: Values = self.weights / self.weights.sum()
        return shares

    def at(self, uniform: float) -> int:
        """The token that a random number from 0 to 1 selects: the inverse of the cumulative distribution, in the order of ids.

        A change in the last bit of a logit moves a border between two tokens slightly, and never changes their order.
        """
        place = self._look(uniform) if self._weights is None and len(self.ids) >= FEW else None
        if place is None:
            place = crossing(self.weights, uniform * float(np.add.reduce(self.weights)), "right")
        return int(self.ids[place])

    def _look(self, uniform: float) -> int | None:
        """The place that a random number selects by the rough sums, if their error cannot change it."""
        sums = self.rough_sums
        total = float(sums.sum())
        block = crossing(sums, uniform * total, "right")
        start = block * BLOCK
        inside = Candidates(self.ids[start : start + BLOCK], self.logits[start : start + BLOCK], self.temperature, None, self.highest)
        running = inside.weights.cumsum()
        missing = uniform * total - float(sums[:block].sum())
        place = int(running.searchsorted(missing, "right"))
        if place == len(running):
            return None
        slack = min(missing - (running[place - 1] if place else 0.0), running[place] - missing)
        return start + place if slack > 3 * ROUGH * total else None

    @property
    def highest(self) -> float:
        """The highest logit."""
        if self._highest is None:
            self._highest = float(self.logits.max())
        return self._highest
