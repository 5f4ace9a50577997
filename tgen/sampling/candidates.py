"""The tokens that a step may draw, and their probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tgen.arrays import Ids, Logits, Mask, Values
from tgen.sampling.logits import (
    BLOCK,
    FEW,
    ExactSums,
    Most,
    Range,
    exact_sums,
    fewest_with_share,
    keep_some,
    places_from,
    rough_sums,
)
from tgen.sampling.selection import crossing

# The largest relative error of a sum of float32 weights. Each exponent is rounded three times, and its mean is at most the
# logarithm of the vocabulary; the sum adds its own roundings.
ROUGH = 5e-6

# The same for the sums of float64 weights that `exact_sums` returns. NumPy's own error is far smaller.
EXACT = 1e-11

# Only a few tokens can be likelier than this, because probabilities add up to 1.
FEWEST = 1e-3

# Up to this many candidates are gathered even where the known sums of weights make a draw from all entries fast.
GATHERED = 2048

# The highest factor that cannot make a difference of two logits infinite. Only absurd temperatures have a 1 / temperature above it.
LARGEST_FACTOR = 1e269

LOWEST = float(np.finfo(np.float32).min)


@dataclass(slots=True, eq=False)
class Candidates:
    """The tokens still in play.

    `entries` are ids in ascending order, [n], and `scores` their logits before temperature, [n]. With `cut`, an entry with the logit -inf
    is no candidate: where many candidates are left, marking the others is faster than gathering these.
    """

    entries: Ids
    scores: Logits | Values
    temperature: float = 1.0
    cut: bool = False
    _weights: Values | None = None
    _highest: float | None = None
    _rough: Values | None = None
    _exact: Values | None = None
    _gathered: Candidates | None = None
    _lowest: float = -math.inf  # the lowest logit, or a lower number
    _count: int = -1  # of candidates, if it is known

    def __post_init__(self) -> None:
        if not self.cut:
            self._count = len(self.entries)

    @property
    def ids(self) -> Ids:
        """The ids of the candidates, in ascending order."""
        return self._gather().entries

    @property
    def logits(self) -> Logits | Values:
        """The logits of the candidates before temperature."""
        return self._gather().scores

    def _gather(self) -> Candidates:
        """The same candidates, without the entries that `cut` excludes."""
        if not self.cut:
            return self
        if self._gathered is None:
            kept = self.keep((self.scores > -np.inf).nonzero()[0])
            self._gathered = Candidates(kept.entries, kept.scores, kept.temperature, False, kept._weights)
        return self._gathered

    def at_temperature(self, temperature: float) -> Candidates:
        """The same candidates at another temperature."""
        if temperature == self.temperature:
            return self
        return Candidates(self.entries, self.scores, temperature, self.cut, None, self._highest)

    def keep(self, places: Ids) -> Candidates:
        """The candidates among the entries at these places, which are in ascending order."""
        if len(places) == len(self.entries):
            return self
        weights = None if self._weights is None else self._weights.take(places)
        # Ids are distinct and ascend: where the last one says so, they are 0, 1, 2 and so on, and equal their places.
        ids = places if self.entries[-1] == len(self.entries) - 1 else self.entries.take(places)
        return Candidates(ids, self.scores.take(places), self.temperature, self.cut, weights)

    def near(self, places: Ids) -> Candidates:
        """The same as `keep`, but weights stay relative to the highest logit of all candidates."""
        kept = self.keep(places)
        return Candidates(kept.entries, kept.scores, self.temperature, self.cut, kept._weights, self.highest)

    def keep_where(self, kept: Mask) -> Candidates:
        """The candidates among the entries where `kept` is true; the caller keeps no logit -inf."""
        count = int(np.count_nonzero(kept))
        if count == len(kept):
            return self
        if count < FEW:
            return self.keep(kept.nonzero()[0])
        most = Candidates(self.entries, keep_some(self.scores, kept), self.temperature, True)
        most._count = count
        return most

    def fewest(self, share: float, *, typical: bool) -> Candidates | None:
        """The fewest candidates with a share of the probability, the likeliest or most typical ones; None if there is no fast way."""
        if self._weights is not None or len(self.entries) < FEW:
            return None
        found = fewest_with_share(self.scores, self.highest, self._factor, share, typical, GATHERED)
        if found is None:
            return None
        return self._most(found) if isinstance(found, Most) else self.keep(found)

    def _most(self, found: Most) -> Candidates:
        """The candidates that a pass has found."""
        most = Candidates(self.entries, found.kept, self.temperature, True, _highest=found.highest, _lowest=found.lowest, _count=found.size)
        most._exact = found.blocks * math.exp(self._factor * (self.highest - found.highest))
        return most

    def keep_likelier(self, share: float) -> Candidates:
        """The candidates that are at least `share` times as likely as the likeliest one."""
        if self._weights is None and len(self.entries) >= FEW:
            lower, upper = self._border(share)
            if self._lowest >= upper:
                return self
            if (few := self.few_likelier(share, FEW)) is not None:
                return few
            if found := self._from(lower, upper, share):
                return found
        # A filter may have cut the token whose weight was 1.
        likely = self.weights >= share * self.weights.max()
        return self if likely.all() else self.keep(likely.nonzero()[0])

    def few_likelier(self, share: float, most: int) -> Candidates | None:
        """What `keep_likelier` keeps, if there are many entries and fewer than `most` of them are so likely; else None."""
        if self._weights is not None or len(self.entries) < FEW:
            return None
        places = places_from(self.scores, self._border(share)[0], most - 1)
        return None if len(places) >= most else self.keep(places).keep_likelier(share)

    def keep_from(self, border: float) -> Candidates:
        """The candidates whose logits are at least as high as a border."""
        border = max(border, LOWEST)
        places = places_from(self.scores, border, GATHERED)
        if len(places) > GATHERED and len(self.entries) >= FEW and (found := self._from(border, border, 0.0)):
            return found
        return self.keep(places) if len(places) <= GATHERED else self.keep_where(self.scores >= border)

    def _from(self, lower: float, upper: float, share: float) -> Candidates | None:
        """The candidates with logits from `upper` on, or from `lower` on and a weight of at least `share`; None without the library."""
        if np.count_nonzero(self.scores >= upper) == self._count:
            return self
        sums = self.exact_sums((upper, np.inf), (lower, np.inf))
        if sums is None:
            return None
        near = self.near(sums.places)
        likely = near.weights >= share
        places = sums.places[likely]
        sums.kept[places] = near.scores[likely]
        blocks = sums.blocks + np.bincount(places // BLOCK, near.weights[likely], len(sums.blocks))
        return self._most(Most(sums.inside + len(places), lower, self.highest, sums.kept, blocks))

    def at_least(self, share: float) -> tuple[Ids, Values]:
        """The places, in ascending order, of the entries with at least this probability (above 0), and their weights."""
        if self._weights is None and len(self.entries) >= FEW and share > FEWEST:
            border = share * float((self.rough_sums if self._exact is None else self._exact).sum())
            places = places_from(self.scores, self._border(border)[0])
            weights = self.near(places).weights
            sure, possible = (weights >= border * (1 + sign * 2 * ROUGH) for sign in (1, -1))
            if np.array_equal(sure, possible):
                return places[sure], weights[sure]
        places = ((self.weights / float(self.weights.sum()) >= share) & (self.weights > 0)).nonzero()[0]
        return places, self.weights[places]

    def _border(self, weight: float) -> Range:
        """A lower and a higher bound of the logit that has this weight. Each is farther from it than roundings can move it."""
        border = min(max(LOWEST, self.highest + self.temperature * math.log(weight)), -LOWEST)
        margin = self.temperature * 3 * ROUGH + 1e-6 * abs(border)
        return max(border - margin, LOWEST), min(border + margin, -LOWEST)

    def exact_sums(self, inner: Range, outer: Range) -> ExactSums | None:
        """The exact sums of weights, as `exact_sums` describes them."""
        return exact_sums(self.scores, self.highest, self._factor, inner, outer)

    @property
    def _factor(self) -> float:
        return min(1 / self.temperature, LARGEST_FACTOR)

    @property
    def exponents(self) -> Values:
        """The natural logarithms of the entries' weights, [n]: 0 for the likeliest token, negative for the others. A new array."""
        # Subtract first: then a tiny temperature leaves the difference of the highest logit 0. Multiplying takes half the time of dividing.
        scaled: Values = np.subtract(self.scores, self.highest, dtype=np.float64)
        scaled *= self._factor
        return scaled

    def exponent(self, place: int) -> float:
        """The natural logarithm of one entry's weight."""
        return (float(self.scores[place]) - self.highest) * self._factor

    @property
    def weights(self) -> Values:
        """The entries' probabilities before they are normalised, [n]: the likeliest token has weight 1."""
        if self._weights is None:
            scaled = self.exponents
            self._weights = np.exp(scaled, out=scaled)
        return self._weights

    @property
    def rough_sums(self) -> Values:
        """The sums of the weights of each BLOCK of entries, computed in float32. Sums of these have a relative error up to ROUGH."""
        if self._rough is None:
            self._rough = rough_sums(self.scores, self.highest, 1 / self.temperature)
        return self._rough

    def probabilities(self) -> Values:
        """Softmax over the candidates, in the order of `ids`."""
        weights = self._gather().weights
        shares: Values = weights / weights.sum()
        return shares

    def at(self, uniform: float) -> int:
        """The token that a random number from 0 to 1 selects: the inverse of the cumulative distribution, in the order of ids.

        A change in the last bit of a logit moves a border between two tokens slightly, and never changes their order.
        """
        place = self._look(uniform) if self._weights is None and len(self.entries) >= FEW else None
        if place is None:
            all_weights = self.weights
            place = crossing(all_weights, uniform * float(np.add.reduce(all_weights)), "right")
        return int(self.entries[place])

    def _look(self, uniform: float) -> int | None:
        """The place that a random number selects by sums of blocks, if their error cannot change it."""
        if self._exact is None:
            place = self._crossing(self.rough_sums, 3 * ROUGH, uniform)
            if place is not None:
                return place
            every = (LOWEST, np.inf)
            sums = self.exact_sums(every, every)
            self._exact = None if sums is None else sums.blocks
        return None if self._exact is None else self._crossing(self._exact, EXACT, uniform)

    def _crossing(self, sums: Values, error: float, uniform: float) -> int | None:
        """The place that a random number selects by sums with this relative error; None if the error could change it."""
        total = float(sums.sum())
        block = crossing(sums, uniform * total, "right")
        start = block * BLOCK
        inside = Candidates(
            self.entries[start : start + BLOCK], self.scores[start : start + BLOCK], self.temperature, _highest=self.highest
        )
        running = inside.weights.cumsum()
        missing = uniform * total - float(sums[:block].sum())
        place = int(running.searchsorted(missing, "right"))
        if place == len(running):
            return None
        slack = min(missing - (running[place - 1] if place else 0.0), running[place] - missing)
        return start + place if slack > error * total else None

    @property
    def highest(self) -> float:
        """The highest logit."""
        if self._highest is None:
            self._highest = float(self.scores.max())
        return self._highest
