"""Rejection sampling: uses a token that was drawn from one distribution as a draw from another."""

from __future__ import annotations

import numpy as np

from tgen.arrays import Values
from tgen.sampling.candidates import Candidates
from tgen.sampling.selection import crossing


def redraw(target: Candidates, guess: int, proposal: Candidates, uniform: float) -> int:
    """A token that is distributed as `target`, given a guess that was drawn from `proposal` (arXiv:2211.17192, theorem 1).

    The guess is kept with probability min(1, p / q). Otherwise the token is drawn from the excess of `target` over
    `proposal`. After a rejection, the random number is uniform between p / q and 1, so it also selects that token.
    """
    p, q = target.probabilities(), _at(proposal, target.ids)
    place = int(np.searchsorted(target.ids, guess))
    found = place < len(target.ids) and target.ids[place] == guess
    kept = p[place] / q[place] if found else 0.0
    more = np.maximum(p - q, 0)
    total = float(more.sum())
    if uniform < kept or not total:  # rounding can leave a total of 0 where the two distributions are the same
        return guess
    return int(target.ids[crossing(more, (uniform - kept) / (1 - kept) * total, "right")])


def _at(candidates: Candidates, ids: np.ndarray) -> Values:
    """The candidates' probabilities of these ids; 0 for an id that is no candidate."""
    places = np.minimum(np.searchsorted(candidates.ids, ids), len(candidates.ids) - 1)
    found: Values = np.where(candidates.ids[places] == ids, candidates.probabilities()[places], 0.0)
    return found
