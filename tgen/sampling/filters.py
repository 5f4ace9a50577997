"""The filters between temperature and the draw: each takes the candidates and keeps some of them, the likeliest always among them.

A new filter is a function here and a line in FILTERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.arrays import Ids, Logits, Values
from tgen.sampling.selection import crossing, fewest, highest

# Logits are float32, and so exact are the probabilities: without this, eight of ten equal tokens would not always sum to 0.8.
ROUNDING = 1e-6

# The largest relative error of a sum of weights in float32, and the temperature below which float32 cannot divide by it.
ROUGH, COLDEST = 5e-5, 1e-30

# When a first look is not worth its time: for so few candidates, or where the highest logit is so near to the average one, at temperature
# 1, that many are likely. The average is taken over each STRIDE-th logit.
FEW, FLAT, STRIDE = 4096, 8.0, 64


@dataclass(slots=True, eq=False)
class Candidates:
    """The tokens still in play: ids in ascending order, [n], and their logits before temperature, [n]."""

    ids: Ids
    logits: Logits | Values
    temperature: float = 1.0
    _weights: Values | None = None

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

    @property
    def rough_weights(self) -> Logits:
        """The same in float32, at half the price. Their sum is right to ROUGH; for a temperature below COLDEST they are wrong."""
        return self._compute(np.float32)

    def _compute(self, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        scaled = self.logits.astype(dtype)
        # Differences first: a tiny temperature makes them infinite, and leaves the highest logit alone. A product takes half the time of
        # a division.
        with np.errstate(over="ignore"):
            scaled -= scaled.max()
            scaled *= dtype(min(1 / self.temperature, float(np.finfo(dtype).max)))
        return np.exp(scaled, out=scaled)

    def probabilities(self) -> Values:
        """Softmax over the candidates, [n]."""
        total: Values = self.weights / self.weights.sum()
        return total

    def at(self, uniform: float) -> int:
        """The token at a place in the unit interval, on which the candidates' shares stand in the order of their ids.

        This is the inverse of the cumulative distribution. A change in the last bit of a logit moves a border, not the order.
        """
        return int(self.ids[crossing(self.weights, uniform * float(self.weights.sum()), "right")])


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Exactly the k highest; among equals the lower ids. 0 is off."""
    return candidates if k == 0 or k >= len(candidates.ids) else candidates.keep(highest(candidates.logits, k))


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of highest-probability tokens whose sum reaches p, the crossing one included (arXiv:1904.09751). 1 is off."""
    if p >= 1:
        return candidates
    share = max(p - ROUNDING, 0.0)
    likely, rest = _likely(candidates, share)
    kept, slack = fewest(likely.logits, likely.weights, share * (float(likely.weights.sum()) + rest))
    if slack < share * rest * ROUGH:  # the border is too near for a rough sum
        likely = candidates
        kept, _ = fewest(likely.logits, likely.weights, share * float(likely.weights.sum()))
    return likely.keep(kept)


def _likely(candidates: Candidates, share: float) -> tuple[Candidates, float]:
    """Candidates of which some reach this share of the whole, and the weight of all others: a first look in float32."""
    count = len(candidates.ids)
    typical = float(candidates.logits[::STRIDE].mean(dtype=np.float64))
    if count < FEW or candidates.temperature < COLDEST or float(candidates.logits.max()) - typical < FLAT * candidates.temperature:
        return candidates, 0.0
    weights = candidates.rough_weights
    # All tokens below this bound sum to less than 1 - share together.
    likely = weights >= (1 - share) * float(weights.sum()) / count * (1 - 2 * ROUGH)
    if 4 * np.count_nonzero(likely) > count:
        return candidates, 0.0
    places = np.flatnonzero(likely)
    weights[places] = 0
    return candidates.keep(places), float(weights.sum())


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Tokens at least p times as likely as the likeliest one (arXiv:2407.01082). 0 is off."""
    return candidates if p == 0 else candidates.keep(np.flatnonzero(candidates.weights >= p * (1 - ROUNDING)))


# By the name of the option whose value each takes, in their order.
FILTERS = (("top_k", top_k), ("top_p", top_p), ("min_p", min_p))
