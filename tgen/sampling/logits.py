"""The model's raw numbers: whether they are finite, and their log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.arrays import Logits, Values
from tgen.errors import TgenError


class NumericalError(TgenError):
    """The model returned numbers that are not finite."""

    type = "numerical"


def require_finite(numbers: npt.NDArray[np.floating[Any]], where: str) -> None:
    """Raise NumericalError for NaN or infinity, saying where."""
    if not np.isfinite(numbers).all():
        raise NumericalError(f"the model's numbers are not finite {where}", "try --dtype float32")


def log_softmax(logits: Logits) -> Values:
    """Natural logarithms of the raw distribution's probabilities, [vocab]."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: Values = wide - np.log(np.exp(wide).sum())
    return result
