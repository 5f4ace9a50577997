"""Top-p: the smallest set of likeliest candidates that together have a given share of the probability."""

from __future__ import annotations

import math

import numpy as np

from tgen.arrays import Ids
from tgen.sampling.candidates import Candidates
from tgen.sampling.selection import GROUP, fewest, group_maxima

# The largest relative error of a sum of float32 weights. Each exponent is rounded three times, and its mean is at most the
# logarithm of the vocabulary; the sum adds its own roundings.
ROUGH = 5e-6

# A first look in float32 pays only with at least FEW candidates, and only if the highest logit is more than FLAT above the average one
# (at temperature 1): otherwise many candidates are likely.
FEW, FLAT = 16384, 8.0

# The average is taken over every STRIDE-th logit. The first border is the TOP-th highest group maximum.
STRIDE, TOP = 512, 100


def nucleus(candidates: Candidates, share: float) -> Ids:
    """The places, in ascending order, of the fewest likeliest candidates whose share is at least `share`, 0 <= share < 1.

    A first look in float32 finds the few candidates that can be among them; mostly, float64 is needed for these alone.
    """
    if _worth_a_look(candidates) and (found := _first_look(candidates, share)) is not None:
        return found
    return fewest(candidates.logits, candidates.weights, share * float(candidates.weights.sum()))[0]


def _worth_a_look(candidates: Candidates) -> bool:
    if len(candidates.ids) < FEW:
        return False
    average = float(candidates.logits[::STRIDE].mean(dtype=np.float64))
    return candidates.highest - average > FLAT * candidates.temperature


def _first_look(candidates: Candidates, share: float) -> Ids | None:
    """The places of the nucleus, or None if float32 cannot tell where it ends."""
    count, logits, rough = len(candidates.ids), candidates.logits, candidates.rough_weights()
    total = float(rough.sum())
    maxima = group_maxima(logits, count // GROUP)
    # Few candidates reach the first border, and mostly they suffice; all below the second border together have less than 1 - share.
    sure = candidates.highest + candidates.temperature * (math.log((1 - share) * total / count) - 4 * ROUGH)
    for border in (np.partition(maxima, -TOP)[-TOP], sure):
        places = np.flatnonzero(logits >= border)
        inside = float(rough.take(places).sum(dtype=np.float64))
        if inside > (share + 2 * ROUGH) * total:
            break
    if 4 * len(places) > count:
        return None
    likely = candidates.keep(places)
    total += float(likely.weights.sum()) - inside
    kept, slack = fewest(likely.logits, likely.weights, share * total)
    return places[kept] if slack > 2 * ROUGH * total else None
