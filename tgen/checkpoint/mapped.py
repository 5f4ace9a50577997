"""Reads weights as NumPy arrays: views of the mapped files, and the parameters that a family's table makes from them.

It knows no tensor framework. NumPy lacks bfloat16, so arrays of uint16 hold such numbers, and each array comes with the name of its format.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from tgen.checkpoint.matching import Match, Matches, no_number, no_repeat
from tgen.checkpoint.quantised.floats import FLOATS, POWERS, eight_bits
from tgen.checkpoint.stored import Adapted, StoredTensor
from tgen.families.table import Add, Take, moved

Array = npt.NDArray[Any]

FORMATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
    **dict.fromkeys(("I32", "U32"), np.dtype("<u4")),  # the words of packed matrices
    **dict.fromkeys(("I8", "U8", *FLOATS, POWERS), np.dtype("u1")),  # bytes, whatever they mean
}
BLOCK = 2**20  # numbers checked at a time, to keep NumPy's temporary arrays small
BF16_EXPONENT = np.uint16(0x7F80)  # only infinity and NaN have all of these bits set


class MappedFiles:
    """Files of weights, each mapped into memory once. `release` gives the pages of a tensor back to the system."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._merged: tuple[StoredTensor, Array] | None = None  # the latest merged matrix; a fused one is read once for each of its parts

    def array(self, stored: StoredTensor) -> Array:
        """A view of the file, with bfloat16 as uint16. Its pages are private, so writing to it would not change the file.

        For a packed or an adapted tensor it is a new array with the computed numbers.
        """
        if stored.adapted is not None:
            if self._merged is None or self._merged[0] is not stored:
                self._merged = stored, self._merge(stored.adapted)
            return self._merged[1]
        if stored.packed is not None:
            return stored.packed.numbers(self)
        number = FORMATS[stored.dtype]
        count = (stored.stop - stored.start) // number.itemsize
        if count == 0:
            return np.empty(stored.shape, number)
        flat = np.frombuffer(self._map(stored.file), number, count, stored.start)
        if stored.strides is None:
            return flat.reshape(stored.shape)
        return as_strided(flat, stored.shape, [stride * number.itemsize for stride in stored.strides])

    def floats(self, stored: StoredTensor) -> npt.NDArray[np.float32]:
        """The numbers in float32."""
        array = self.array(stored)
        return eight_bits(stored.dtype)[array] if stored.dtype in (*FLOATS, POWERS) else widened(array, stored.dtype)

    def _merge(self, adapted: Adapted) -> npt.NDArray[np.float32]:
        """The numbers of an adapted matrix (LoRA: Hu et al. 2021; magnitudes: DoRA, Liu et al. 2024)."""
        change = adapted.change
        merged: npt.NDArray[np.float32] = self.floats(adapted.base).copy()
        rows = merged.T if change.turned else merged
        rows += self.floats(change.up) @ self.floats(change.down) * np.float32(change.scale)
        if change.magnitudes is not None:
            rows *= (self.floats(change.magnitudes) / np.linalg.norm(rows, axis=1))[:, None]
        return merged

    def release(self, stored: StoredTensor, *, around: bool = False) -> None:
        """Let the system drop the pages of a tensor that was copied, so that loading needs little more than the weights.

        `around` includes pages that hold numbers of other tensors too, to which nobody has written: the file has them.
        """
        more = mmap.PAGESIZE - 1 if around else 0
        for part in stored.parts:
            mapped = self._maps.get(part.file)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                start = (part.start + mmap.PAGESIZE - 1 - more) // mmap.PAGESIZE * mmap.PAGESIZE
                length = (part.stop + more) // mmap.PAGESIZE * mmap.PAGESIZE - start
                if length > 0:
                    mapped.madvise(mmap.MADV_DONTNEED, start, length)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with open(path, "rb") as file:
                try:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                except OSError as error:
                    if error.errno == errno.ENOMEM:
                        raise MemoryError(f"no room for {path.name}") from error
                    raise
            use_huge_pages(self._maps[path])
        return self._maps[path]


def use_huge_pages(mapped: mmap.mmap) -> None:
    """Ask the system to map a file with huge pages, because reading memory through small pages is a fifth slower."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # the system or the file system has no huge pages
            mapped.madvise(mmap.MADV_HUGEPAGE)


def read_parameter(name: str, match: Match, files: MappedFiles) -> tuple[Array, str]:
    """A parameter and the name of its format. The array is a view of the file if no step of the table changes a number.

    Raises CheckpointError for NaN or infinity.
    """
    array, dtype = matched(match, files)
    if not is_finite(array, dtype):
        raise no_number(name)
    return array, dtype


def matched(match: Match, files: MappedFiles) -> tuple[Array, str]:
    """A parameter and the name of its format, without a check for NaN or infinity."""
    return taken(files.array(match.tensor), match.tensor.dtype, match.take)


def check_repeats(matches: Matches, files: MappedFiles) -> None:
    """Raise UnsupportedError where a tensor that should be a copy of another one differs from it."""
    for name, (copy, original) in matches.repeats.items():
        if not np.array_equal(files.array(copy), files.array(original)):
            raise no_repeat(name)


def taken(array: Array, dtype: str, take: Take) -> tuple[Array, str]:
    """A tensor after the steps of a table, and the format that it has then."""
    for step in take:
        if isinstance(step, Add):
            array, dtype = widened(array, dtype) + np.float32(step.number), "F32"
        else:
            array = moved(step, array)
    return array, dtype


def widened(array: Array, dtype: str) -> npt.NDArray[np.float32]:
    """The same numbers in float32."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def is_finite(array: Array, dtype: str) -> bool:
    """Whether no number is NaN or infinite."""
    if dtype == "BF16":
        return not any(((block & BF16_EXPONENT) == BF16_EXPONENT).any() for block in _blocks(array))
    return all(np.isfinite(block).all() for block in _blocks(array))


def _blocks(array: Array) -> Iterator[Array]:
    """The array in blocks of rows."""
    rows = max(1, BLOCK * len(array) // max(1, array.size))
    return (array[start : start + rows] for start in range(0, len(array), rows))
