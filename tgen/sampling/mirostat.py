"""Mirostat 2 (arXiv:2007.14966, algorithm 2): keeps the surprise of a text near a target, by a limit that follows what was drawn."""

from __future__ import annotations

import math

import numpy as np

from tgen.sampling.candidates import Candidates
from tgen.sampling.logits import FEW

SMALLEST = 5e-324  # the smallest float above 0


class Mirostat:
    """The limit of one row. Surprise is -log2 of a token's probability before the cut, in bits."""

    def __init__(self, target: float, rate: float) -> None:
        """`target` is the surprise in bits a token, `rate` how much of an error the limit makes up for at each step."""
        self._target = target
        self._rate = rate
        self._limit = 2 * target

    def keep(self, candidates: Candidates) -> Candidates:
        """The candidates that surprise no more than the limit, and always the likeliest."""
        # Surprise is log2(total / weight), so the limit is one of weights.
        share = _total(candidates) * 2.0**-self._limit if self._limit > 0 else 1.0
        return candidates.keep_likelier(min(max(share, SMALLEST), 1.0))

    def learn(self, candidates: Candidates, token: int) -> None:
        """Move the limit: this token was drawn, and `candidates` are those before the cut."""
        place = int(np.searchsorted(candidates.entries, token))
        surprise = math.log2(_total(candidates)) - candidates.exponent(place) / math.log(2)
        # A token that a constraint forced upon the row may have no probability at all.
        if math.isfinite(surprise):
            self._limit -= self._rate * (surprise - self._target)


def _total(candidates: Candidates) -> float:
    """The sum of the weights. For a large vocabulary it is rough, but moves surprise no more than rounding logits does: 1e-5 bits."""
    return float(candidates.rough_sums.sum()) if len(candidates.entries) >= FEW else float(np.add.reduce(candidates.weights))
