"""Passes over all the numbers of a step: the native library makes them where it is there, else NumPy, and both lead to the same tokens."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.arrays import Ids, Logits, Values
from tgen.errors import TgenError

# With fewer numbers than this, NumPy is as fast as the library.
FEW = 16384

# `rough_sums` sums blocks of this size.
BLOCK = 512


class NumericalError(TgenError):
    """The model returned numbers that are not finite."""

    type = "numerical"


def require_finite(numbers: npt.NDArray[np.floating[Any]], where: str) -> None:
    """Raise NumericalError for NaN or infinity, saying where."""
    flat = numbers.ravel()
    library = _library(flat)
    finite = library.finite(flat.ctypes.data, len(flat)) if library else np.isfinite(flat).all()
    if not finite:
        raise NumericalError(f"the model's numbers are not finite {where}", "try --dtype float32")


def log_softmax(logits: Logits) -> Values:
    """Natural logarithms of the raw distribution's probabilities, [vocab]."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: Values = wide - np.log(np.exp(wide).sum())
    return result


def group_maxima(values: Logits | Values, groups: int) -> Logits | Values:
    """The highest value of each group; a few of the values belong to no group."""
    maxima: Logits | Values
    if library := _library(values):
        maxima = np.empty(groups, np.float32)
        library.maxima(values.ctypes.data, len(values), groups, maxima.ctypes.data)
    else:
        maxima = np.maximum.reduce(values[: len(values) - len(values) % groups].reshape(-1, groups), axis=0)
    return maxima


def places_from(values: Logits | Values, border: float | np.floating) -> Ids:
    """The places of the values from `border` upwards, in ascending order."""
    if library := _library(values):
        places = np.empty(len(values), np.int64)
        return places[: library.places(values.ctypes.data, len(values), border, places.ctypes.data)]
    return (values >= border).nonzero()[0]


def rough_sums(values: Logits | Values, highest: float, factor: float) -> Values:
    """For each BLOCK of values and the rest, the sum of exp((value - highest) * factor), in float32: in a quarter of float64's time."""
    # Within these limits, no product of a difference is NaN; a difference may become infinite.
    factor = max(1e-37, min(factor, float(np.finfo(np.float32).max)))
    if library := _library(values):
        sums = np.zeros(len(values) // BLOCK + 1)
        library.sums(values.ctypes.data, len(values), BLOCK, highest, factor, sums.ctypes.data)
        return sums
    with np.errstate(over="ignore"):
        scaled = np.subtract(values, highest, dtype=np.float32)
        scaled *= np.float32(factor)
    np.exp(scaled, out=scaled)
    whole = len(scaled) - len(scaled) % BLOCK
    # Along rows NumPy adds in pairs, which is more exact than one after the other.
    blocks = np.add.reduce(scaled[:whole].reshape(-1, BLOCK), axis=1)
    return np.append(blocks, np.add.reduce(scaled[whole:])).astype(np.float64)


class _Library:
    """The native library's passes on the fastest kernel that runs here."""

    def __init__(self, library: ctypes.CDLL, kernel: int) -> None:
        self.finite, self.maxima, self.places, self.sums = (
            functools.partial(getattr(library, f"tgen_scan_{name}"), kernel) for name in ("finite", "maxima", "places", "sums")
        )


@functools.cache
def _loaded() -> _Library | None:
    # Imported on use: a run with a small vocabulary needs no library.
    from tgen.executors.native.library import kernels, load

    library = load().library
    return None if library is None else _Library(library, next(iter(kernels(library).values())))


def _library(values: npt.NDArray[Any]) -> _Library | None:
    """The library, if it is built, can read these values, and is faster than NumPy."""
    return _loaded() if len(values) >= FEW and values.dtype == np.float32 and values.flags.c_contiguous else None
