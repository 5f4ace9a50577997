"""Reads matrices of integers of a few bits. Each group of columns of a row has a scale, and perhaps a zero point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.stored import Floats, Narrow, Packed, Reader, StoredTensor, Words

Bytes = npt.NDArray[np.uint8]
PANEL_GROUP = 32  # columns that share a scale in a panel of the native executor
BLOCK = 2**20  # numbers computed at a time, to keep NumPy's temporary arrays small


@dataclass(frozen=True, slots=True)
class Integers:
    """Unsigned integers [rows, columns] in words of 32 bits, the first in the lowest bits. An integer may lie in two words.

    A word holds neighbours of a row, in a tensor [rows, words], or with `down` neighbours of a column, in a tensor [columns, words].
    `order` says which of these neighbours each place of a word holds. A tensor of signed bytes ("I8") holds the integers less 128.
    """

    tensor: StoredTensor
    bits: int
    shape: tuple[int, int]
    down: bool = False
    order: tuple[int, ...] = ()

    def read(self, files: Reader) -> Bytes:
        """The integers, [rows, columns]."""
        array = files.array(self.tensor)
        if self.tensor.dtype == "I8":
            return array ^ np.uint8(128)
        found = unpacked(array, self.bits, self.shape[0] if self.down else self.shape[1])
        if self.order:
            ordered = np.empty_like(found).reshape(len(found), -1, len(self.order))
            ordered[..., self.order] = found.reshape(ordered.shape)
            found = ordered.reshape(found.shape)
        return found.T if self.down else found

    def words(self, files: Reader) -> Words:
        """The integers packed along the rows, [rows, words], as panels take them."""
        if self.tensor.dtype == "I8" or self.down:
            return packed(self.read(files), self.bits)
        return files.array(self.tensor)


def unpacked(words: Words, bits: int, count: int) -> Bytes:
    """The first `count` integers of `bits` bits of each row of words, [..., words] -> [..., count], from bit 0 of the first word on."""
    if bits == 8:
        return np.ascontiguousarray(words).view(np.uint8)[..., :count]
    mask = np.uint32(2**bits - 1)
    lacking = -words.shape[-1] % bits if 32 % bits else 0
    runs = np.pad(words, [(0, 0)] * (words.ndim - 1) + [(0, lacking)]) if lacking else np.ascontiguousarray(words)
    runs = runs.reshape(*words.shape[:-1], -1, bits if 32 % bits else 1)  # a run of words holds whole integers
    each = 32 * runs.shape[-1] // bits
    found = np.empty((*runs.shape[:-1], each), np.uint8)
    for place in range(each):
        word, shift = divmod(place * bits, 32)
        part = runs[..., word] >> np.uint32(shift)
        if shift + bits > 32:
            part |= runs[..., word + 1] << np.uint32(32 - shift)
        found[..., place] = part & mask
    return found.reshape(*words.shape[:-1], -1)[..., :count]


def packed(integers: Bytes, bits: int) -> Words:
    """Integers of 4 or 8 bits [rows, columns], packed into words [rows, columns * bits / 32]."""
    if bits == 4:
        integers = integers[:, 0::2] | integers[:, 1::2] << np.uint8(4)
    words: Words = np.ascontiguousarray(integers).view(np.uint32)
    return words


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cover the rows of a matrix, each of about BLOCK numbers."""
    step = max(1, BLOCK // max(1, columns))
    return (slice(start, start + step) for start in range(0, rows, step))


@dataclass(frozen=True, slots=True)
class Grouped(Packed):
    """A matrix (integer - zero) * scale / divisor, with zero points [rows, groups] and scales [rows, groups] or [rows].

    Each `group` columns share a scale and a zero point; the last group may have fewer, and `index` may name the group of each column
    instead. Without `zeros`, every zero point is 2^(bits - 1). `symmetric` says that config.json promises this of stored zero points, too.
    `added` is added to each stored zero point. `held_in` is the format for the floats; None is that of the scales.
    """

    integers: Integers
    scale: StoredTensor
    group: int
    zeros: Integers | None = None
    added: int = 0
    symmetric: bool = False
    index: StoredTensor | None = None
    divisor: float = 1.0
    held_in: str | None = None

    @property
    def number_format(self) -> str:
        """The type of the scales, or `held_in`."""
        return self.held_in or self.scale.dtype

    @property
    def stored_as(self) -> str:
        """INT4, INT8 and so on, by the bits of an integer."""
        return f"INT{self.integers.bits}"

    def numbers(self, files: Reader) -> Floats:
        """The matrix in float32."""
        integers, scales, zeros = self.integers.read(files), self._scales(files), self._zeros(files)
        rows, columns = self.integers.shape
        index = np.arange(columns) // self.group if self.index is None else files.array(self.index).view(np.int32)
        matrix = np.empty((rows, columns), np.float32)
        for some in blocks(rows, columns):
            offset = np.float32(self._middle) if zeros is None else zeros[some].astype(np.float32)[:, index]
            matrix[some] = (integers[some].astype(np.float32) - offset) * scales[some][:, index]
        return matrix

    @property
    def panel_bits(self) -> int | None:
        """The bits, 4 or 8, that hold each integer less its zero point, which takes one bit more than the integer.

        None if 32 columns may have several scales, or if the difference takes more than 8 bits.
        """
        columns = self.integers.shape[1]
        if self.index is not None or columns % self.group or self.group % PANEL_GROUP:
            return None
        signed = self.integers.bits + (self.zeros is not None and not self.symmetric)
        return 4 if signed <= 4 else 8 if signed <= 8 else None

    def panel(self, files: Reader) -> tuple[Narrow, Floats] | None:
        """The integers and their scales; None if the stored zero points are not 2^(bits - 1), as `symmetric` promises."""
        bits, zeros = self.panel_bits, self._zeros(files)
        assert bits is not None
        if self.symmetric and zeros is not None:
            if (zeros != self._middle).any():
                return None
            zeros = None
        scales = self._scales(files)
        if zeros is None and self.integers.bits == bits:
            return Narrow(self.integers.words(files), np.asarray), scales
        integers = self.integers.read(files).reshape(len(scales), -1, self.group)
        offset = np.uint8(2 ** (bits - 1)) - (np.uint8(self._middle) if zeros is None else zeros[..., None])
        return Narrow((integers + offset).reshape(self.integers.shape), partial(packed, bits=bits)), scales

    @property
    def _middle(self) -> int:
        return int(2 ** (self.integers.bits - 1))

    def _scales(self, files: Reader) -> Floats:
        scales = files.floats(self.scale).reshape(self.integers.shape[0], -1)
        return scales if self.divisor == 1.0 else scales / np.float32(self.divisor)

    def _zeros(self, files: Reader) -> Bytes | None:
        if self.zeros is None:
            return None
        return (self.zeros.read(files) + np.uint8(self.added)) & np.uint8(2**self.integers.bits - 1)
