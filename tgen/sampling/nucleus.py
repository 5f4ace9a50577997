"""Top-p: the smallest set of likeliest candidates that together have a given share of the probability."""

from __future__ import annotations

import numpy as np

from tgen.arrays import Ids
from tgen.sampling.candidates import ROUGH, Candidates
from tgen.sampling.logits import FEW, group_maxima, places_from
from tgen.sampling.selection import GROUP, fewest

# A first look in float32 pays only if the highest logit is more than FLAT above the average one (at temperature 1): otherwise many
# candidates are likely.
FLAT = 8.0

# The average is taken over every STRIDE-th logit. The first border is the TOP-th highest group maximum.
STRIDE, TOP = 64, 100

# The second border leaves about this share of what is outside the nucleus below it. If more than one candidate in MOST is above it, the
# look gives up.
OUTSIDE, MOST = 0.1, 2


def nucleus(candidates: Candidates, share: float) -> Ids:
    """The places, in ascending order, of the fewest likeliest candidates whose share is at least `share`, 0 <= share < 1.

    A first look in float32 finds the few candidates that can be among them; mostly, float64 is needed for these alone.
    """
    if len(candidates.ids) >= FEW and (found := _look(candidates, share)) is not None:
        return found
    weights = candidates.weights
    return fewest(candidates.logits, weights, share * float(np.add.reduce(weights)))[0]


def _look(candidates: Candidates, share: float) -> Ids | None:
    """The places of the nucleus, or None if many candidates are likely, or if float32 cannot tell where it ends."""
    logits = candidates.logits
    some = logits[::STRIDE]
    if candidates.highest - float(some.mean(dtype=np.float64)) < FLAT * candidates.temperature:
        return None
    total = float(candidates.rough_sums.sum())
    maxima = group_maxima(logits, len(logits) // GROUP)
    maxima.partition(len(maxima) - TOP)
    # Few candidates reach the first border, and mostly they suffice.
    places = places_from(logits, maxima[-TOP])
    likely = candidates.keep(places)
    kept, slack = fewest(likely.logits, likely.weights, share * total)
    if slack > 2 * ROUGH * total:
        return places.take(kept)
    some = some.copy()
    some.sort()
    sample = Candidates(candidates.ids[::STRIDE], some, candidates.temperature, None, candidates.highest)
    below = int(sample.weights.cumsum().searchsorted(OUTSIDE * (1 - share) * total / STRIDE))
    border = some[min(below, len(some) - 1)]
    places = places_from(logits, border)
    if MOST * len(places) > len(logits):
        return None
    # Only the sum of what is below the border has the error of float32.
    rest = Candidates(candidates.ids, np.where(logits < border, logits, -np.inf), candidates.temperature, None, candidates.highest)
    tail, likely = float(rest.rough_sums.sum()), candidates.keep(places)
    kept, slack = fewest(likely.logits, likely.weights, share * (tail + float(likely.weights.sum())))
    return places.take(kept) if slack > 2 * ROUGH * tail else None
