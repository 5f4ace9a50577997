"""The fewest candidates that together have a given share of the probability: the likeliest (top-p), or the most typical (typical-p)."""

from __future__ import annotations

import numpy as np

from tgen.sampling.candidates import GATHERED, ROUGH, Candidates
from tgen.sampling.logits import FEW
from tgen.sampling.selection import fewest

# If only a few candidates are at least this many times as likely as the likeliest one, the nucleus is sought among them alone.
LEAST = 1e-3


def nucleus(candidates: Candidates, share: float) -> Candidates:
    """The likeliest candidates, as few as have `share` or more, 0 <= share < 1; among equals those with lower ids."""
    if (found := candidates.fewest(share, typical=False)) is not None:
        return found
    likely = candidates.few_likelier(LEAST, GATHERED)
    if likely is not None and (found := _among(likely, candidates, share)) is not None:
        return found
    weights = candidates.weights
    return candidates.keep(fewest(candidates.scores, weights, share * float(np.add.reduce(weights)))[0])


def likely_nucleus(candidates: Candidates, share: float, least: float) -> Candidates | None:
    """Those of the nucleus at least `least` times as likely as the likeliest candidate; None if finding them at once saves no time."""
    likely = candidates.few_likelier(least, FEW)
    if likely is None:
        return None
    if float(np.add.reduce(likely.weights)) < share * float(candidates.rough_sums.sum()) * (1 - 2 * ROUGH):
        return likely  # all of them, and others, are in the nucleus
    return _among(likely, candidates, share)


def _among(likely: Candidates, candidates: Candidates, share: float) -> Candidates | None:
    """The nucleus, if it is among likely ones, and if float32 can tell where it ends."""
    target = share * float(candidates.rough_sums.sum())
    kept, slack = fewest(likely.scores, likely.weights, target)
    return likely.keep(kept) if slack > 2 * ROUGH * target else None


def typical(candidates: Candidates, share: float) -> Candidates:
    """The fewest candidates with such a share, those first whose surprise is nearest to the entropy. The likeliest one may be cut."""
    if (found := candidates.fewest(share, typical=True)) is not None:
        return found
    weights, total = candidates.weights, float(np.add.reduce(candidates.weights))
    # A token's surprise is log(total) minus its exponent, so its exponent is as far from the mean as its surprise is from the entropy.
    distance = candidates.exponents
    masked = distance == -np.inf if candidates.scores.min() == -np.inf else None
    if masked is not None:
        distance[masked] = 0.0  # its weight is 0, and -inf times 0 is NaN
    distance -= float(np.add.reduce(weights * distance)) / total  # `@` would start threads
    np.abs(distance, out=distance)
    if masked is not None:
        distance[masked] = np.inf
    return candidates.keep(fewest(np.negative(distance, out=distance), weights, share * total)[0])
