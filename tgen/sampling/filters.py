"""The filters between temperature and the draw: each takes the candidates and keeps some of them, the likeliest always among them.

A new filter is a function here and a line in FILTERS.
"""

from __future__ import annotations

import numpy as np

from tgen.options import GenerationOptions
from tgen.sampling.candidates import Candidates
from tgen.sampling.nucleus import nucleus
from tgen.sampling.selection import highest

# Float32 logits make the probabilities inexact: without this margin, eight of ten equal tokens would not always sum to 0.8.
ROUNDING = 1e-6


def top_k(candidates: Candidates, k: int) -> Candidates:
    """Exactly the k highest; among equals the lower ids. 0 is off."""
    return candidates if k == 0 else candidates.keep(highest(candidates.logits, k))


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The smallest set of highest-probability tokens whose sum reaches p, the crossing one included (arXiv:1904.09751). 1 is off."""
    return candidates if p >= 1 else candidates.keep(nucleus(candidates, max(p - ROUNDING, 0.0)))


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Tokens at least p times as likely as the likeliest one (arXiv:2407.01082). 0 is off."""
    return candidates if p == 0 else candidates.keep(np.flatnonzero(candidates.weights >= p * (1 - ROUNDING)))


# Each filter with the option that it takes, in the order they run.
FILTERS = (("top_k", top_k), ("top_p", top_p), ("min_p", min_p))


def filtered(first: Candidates, options: GenerationOptions) -> list[tuple[str, Candidates]]:
    """The candidates after temperature and after each filter, with its name; the draw is from the last."""
    stages = [("temperature", first)]
    for name, keep in FILTERS:
        stages.append((name, keep(stages[-1][1], getattr(options, name))))
    return stages
