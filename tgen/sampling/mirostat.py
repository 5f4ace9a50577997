"""Mirostat 2 (arXiv:2007.14966, algorithm 2): keeps the surprise of a text near a target, by a limit that follows what was drawn."""

from __future__ import annotations

import math

import numpy as np

from tgen.arrays import Values
from tgen.sampling.candidates import Candidates


class Mirostat:
    """The limit of one row. Surprise is -log2 of a token's probability before the cut, in bits."""

    def __init__(self, target: float, rate: float) -> None:
        """`target` is the surprise in bits a token, `rate` how much of an error the limit makes up for at each step."""
        self._target = target
        self._rate = rate
        self._limit = 2 * target

    def keep(self, candidates: Candidates) -> Candidates:
        """The candidates that surprise no more than the limit, and always the likeliest."""
        surprise = _surprise(candidates)
        return candidates.keep(np.flatnonzero(surprise <= max(self._limit, float(surprise.min()))))

    def learn(self, candidates: Candidates, token: int) -> None:
        """Move the limit: this token was drawn, and `candidates` are those before the cut."""
        place = int(np.searchsorted(candidates.ids, token))
        surprise = float(_surprise(candidates)[place])
        # A token that a constraint forced upon the row may have no probability at all.
        if math.isfinite(surprise):
            self._limit -= self._rate * (surprise - self._target)


def _surprise(candidates: Candidates) -> Values:
    with np.errstate(divide="ignore"):
        surprise: Values = -np.log2(candidates.probabilities())
    return surprise
