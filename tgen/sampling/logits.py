"""Passes over all the numbers of a step, by the native library where it is built, else by NumPy. Both lead to the same tokens."""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tgen.arrays import Ids, Logits, Mask, Values
from tgen.errors import TgenError

# With fewer numbers than this, NumPy is as fast as the library.
FEW = 16384

# The passes sum blocks of this size.
BLOCK = 512

# A lowest and a highest value; both belong to the range.
Range = tuple[float, float]
Float = TypeVar("Float", bound=np.floating[Any])


class NumericalError(TgenError):
    """The model returned numbers that are not finite."""

    type = "numerical"


def require_finite(numbers: npt.NDArray[np.floating[Any]], where: str) -> float:
    """The highest of the numbers. Raises NumericalError for NaN or infinity, saying where."""
    flat = numbers.ravel()
    if library := _library(flat):
        highest: float = library.highest(flat.ctypes.data, len(flat))
    else:
        highest = float(flat.max(initial=-np.inf)) if np.isfinite(flat).all() else math.nan
    if math.isnan(highest):
        raise NumericalError(f"the model's numbers are not finite {where}", "try --dtype float32")
    return highest


def log_softmax(logits: Logits) -> Values:
    """Natural logarithms of the raw distribution's probabilities, [vocab]."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: Values = wide - np.log(np.exp(wide).sum())
    return result


def group_maxima(values: Logits | Values, groups: int) -> Logits | Values:
    """The highest value of each group, [groups]; the values left over by the division belong to no group."""
    maxima: Logits | Values
    if library := _library(values):
        maxima = np.empty(groups, np.float32)
        library.maxima(values.ctypes.data, len(values), groups, maxima.ctypes.data)
    else:
        maxima = np.maximum.reduce(values[: len(values) - len(values) % groups].reshape(-1, groups), axis=0)
    return maxima


def places_from(values: Logits | Values, border: float | np.floating, most: int | None = None) -> Ids:
    """The places of the values from `border` upwards, in ascending order. If there are more than `most`, some may be missing."""
    if library := _library(values):
        most = len(values) if most is None else min(most, len(values))
        places = np.empty(most + 16, np.int64)
        return places[: library.places(values.ctypes.data, len(values), border, most, places.ctypes.data)]
    return (values >= border).nonzero()[0]


def rough_sums(values: Logits | Values, highest: float, factor: float) -> Values:
    """The sum of exp((value - highest) * factor) for each BLOCK of values and the rest, in float32.

    Float64 would take four times as long.
    """
    # Within these limits, no product of a difference is NaN; a difference may become infinite.
    factor = max(1e-37, min(factor, float(np.finfo(np.float32).max)))
    if library := _library(values):
        sums = np.zeros(len(values) // BLOCK + 1)
        library.rough_sums(values.ctypes.data, len(values), BLOCK, highest, factor, sums.ctypes.data)
        return sums
    with np.errstate(over="ignore"):
        scaled = np.subtract(values, highest, dtype=np.float32)
        scaled *= np.float32(factor)
    np.exp(scaled, out=scaled)
    whole = len(scaled) - len(scaled) % BLOCK
    # Along rows NumPy adds in pairs, which is more exact than one after the other.
    blocks = np.add.reduce(scaled[:whole].reshape(-1, BLOCK), axis=1)
    return np.append(blocks, np.add.reduce(scaled[whole:])).astype(np.float64)


class ExactSums(NamedTuple):
    """What `exact_sums` finds."""

    inside: int  # how many values are in the inner range
    kept: Logits  # these values; -inf in the place of the others
    blocks: Values  # the sums of their weights in float64, for each BLOCK of values and the rest
    places: Ids  # of the values in the outer range, but not in the inner one, in ascending order


def exact_sums(values: Logits | Values, highest: float, factor: float, inner: Range, outer: Range) -> ExactSums | None:
    """Sums of the weights exp((value - highest) * factor), and the values in two ranges.

    None without the library: with NumPy, computing every weight is faster.
    """
    library = _library(values)
    if library is None:
        return None
    size = len(values)
    blocks, whole, kept, places = np.empty(-(-size // BLOCK)), np.empty(4), np.empty(size, np.float32), np.empty(size, np.int64)
    ranges = np.array((*inner, *outer), np.float32)
    found = library.exact_sums(
        *(values.ctypes.data, size, BLOCK, highest, factor),
        *(array.ctypes.data for array in (ranges, blocks, whole, kept, places)),
    )
    return ExactSums(int(whole[2]), kept, blocks, places[:found])


class Most(NamedTuple):
    """Values that are too many to be gathered."""

    size: int  # how many values there are
    lowest: float  # of these values, or a lower number
    highest: float
    kept: Logits  # the values; -inf in the place of the others
    blocks: Values  # the sums of their weights in float64, for each BLOCK of values and the rest


def fewest_with_share(values: Logits | Values, highest: float, factor: float, share: float, typical: bool, few: int) -> Ids | Most | None:
    """The fewest values whose weights, those of `exact_sums`, add up to a share of all weights: the highest values or the most typical.

    A value is typical if its exponent is near the mean exponent. Up to `few` values come as their places in ascending order, more of them
    as Most. None without the library, and where float64 cannot tell.
    """
    library = _library(values)
    if library is None:
        return None
    size = len(values)
    blocks, ends, kept, places = np.empty(-(-size // BLOCK)), np.empty(2), np.empty(size, np.float32), np.empty((4, size), np.int64)
    count = library.fewest(
        *(values.ctypes.data, size, BLOCK, highest, factor, share, typical, few),
        *(array.ctypes.data for array in (blocks, kept, ends, places, places[1:])),
    )
    if count < 0:
        return None
    lowest, top = ends.tolist()
    return places[0, :count].copy() if count <= few else Most(count, lowest, top, kept, blocks)


def keep_some(values: npt.NDArray[Float], kept: Mask) -> npt.NDArray[Float]:
    """The values where `kept` is true; -inf elsewhere."""
    result = np.empty_like(values)
    if (library := _library(values)) and kept.flags.c_contiguous:
        library.keep(values.ctypes.data, kept.ctypes.data, len(values), result.ctypes.data)
    else:
        result.fill(-np.inf)
        np.copyto(result, values, where=kept)
    return result


class _Library:
    """The native library's passes on the fastest kernel that runs here."""

    def __init__(self, library: ctypes.CDLL, kernel: int) -> None:
        self.highest, self.maxima, self.places, self.keep, self.rough_sums, self.exact_sums, self.fewest = (
            functools.partial(getattr(library, f"tgen_scan_{name}"), kernel)
            for name in ("highest", "maxima", "places", "keep", "rough_sums", "exact_sums", "fewest")
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
