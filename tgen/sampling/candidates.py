"""The tokens that a step may draw, and their probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.arrays import Ids, Logits, Values
from tgen.sampling.selection import crossing


@dataclass(slots=True, eq=False)
class Candidates:
    """The tokens still in play: ids in ascending order, [n], and their logits before temperature, [n]."""

    ids: Ids
    logits: Logits | Values
    temperature: float = 1.0
    _weights: Values | None = None
    _highest: float | None = None

    def at_temperature(self, temperature: float) -> Candidates:
        """The same candidates at another temperature."""
        return self if temperature == self.temperature else Candidates(self.ids, self.logits, temperature, None, self._highest)

    def keep(self, places: Ids) -> Candidates:
        """The candidates at these places, which are in ascending order."""
        if len(places) == len(self.ids):
            return self
        weights = None if self._weights is None else self._weights.take(places)
        return Candidates(self.ids.take(places), self.logits.take(places), self.temperature, weights)

    @property
    def weights(self) -> Values:
        """Probabilities before they are normalised, [n]: the likeliest token has weight 1."""
        if self._weights is None:
            self._weights = self._compute(np.float64)
        return self._weights

    def rough_weights(self) -> Logits:
        """The weights in float32, which takes half the time."""
        return self._compute(np.float32)

    def probabilities(self) -> Values:
        """Softmax over the candidates, [n]."""
        shares: Values = self.weights / self.weights.sum()
        return shares

    def at(self, uniform: float) -> int:
        """The token that a random number from 0 to 1 selects: the inverse of the cumulative distribution, in the order of ids.

        A change in the last bit of a logit moves a border between two tokens slightly, and never changes their order.
        """
        return int(self.ids[crossing(self.weights, uniform * float(self.weights.sum()), "right")])

    @property
    def highest(self) -> float:
        """The highest logit."""
        if self._highest is None:
            self._highest = float(self.logits.max())
        return self._highest

    def _compute(self, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        # Subtract first: then a tiny temperature makes the differences infinite, but that of the highest logit stays 0. Multiplying takes
        # half the time of dividing.
        with np.errstate(over="ignore"):
            scaled = np.subtract(self.logits, self.highest, dtype=dtype)
            scaled *= dtype(min(1 / self.temperature, float(np.finfo(dtype).max)))
        return np.exp(scaled, out=scaled)
