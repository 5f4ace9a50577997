"""Describes one tensor of a checkpoint: its type, its shape, and where it lies in a file or from which other tensors it is computed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint: its file, the type of its numbers ("F32", "BF16" ...), its shape.

    `start` and `stop` are byte offsets into the file. `strides` count numbers; None means row-major order. With `packed`, the numbers are
    computed from other tensors, in the type `dtype`; a packed matrix is always [outputs, inputs]. With `adapted`, the numbers are those of
    another tensor after an adapter's change.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0
    strides: tuple[int, ...] | None = None
    packed: Packed | None = None
    adapted: Adapted | None = None

    @property
    def number_format(self) -> str:
        """The type in which memory holds the numbers: about as precise as the file, but F32 for F64, because no model needs F64.

        An adapted tensor has the type of its base.
        """
        if self.adapted is not None:
            return self.adapted.base.number_format
        if self.packed is not None:
            return self.packed.number_format
        return "F32" if self.dtype == "F64" else self.dtype

    @property
    def stored_as(self) -> str:
        """The name of its type in the file, for people."""
        if self.adapted is not None:
            return self.adapted.base.stored_as
        return self.dtype if self.packed is None else self.packed.stored_as

    @property
    def is_narrow(self) -> bool:
        """Whether its numbers have fewer than 16 bits each."""
        return self.packed is not None

    @property
    def is_upright(self) -> bool:
        """Whether it is [outputs, inputs] even in a family that stores [inputs, outputs], because it or its base is packed."""
        return self.adapted.base.is_upright if self.adapted is not None else self.packed is not None

    @property
    def nbytes(self) -> int:
        """The bytes that it takes in the files."""
        return sum(part.stop - part.start for part in self.parts)

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors in the files from which its numbers come."""
        if self.adapted is not None:
            return [*self.adapted.base.parts, *self.adapted.change.parts]
        return [self] if self.packed is None else self.packed.parts

    @property
    def turned(self) -> StoredTensor:
        """The matrix with rows and columns exchanged."""
        rows, columns = self.shape
        down, right = self.strides or (columns, 1)
        return replace(self, shape=(columns, rows), strides=(right, down))

    def member(self, index: int) -> StoredTensor:
        """The `index`-th tensor of this stack, which must be in row-major order."""
        if self.packed is not None:
            return replace(self, shape=self.shape[1:], packed=self.packed.member(index))
        size = (self.stop - self.start) // self.shape[0]
        return replace(self, shape=self.shape[1:], start=self.start + index * size, stop=self.start + (index + 1) * size)

    def content(self) -> bytes:
        """The bytes of a small tensor, read from the file at once. Raises OSError."""
        with open(self.file, "rb") as file:
            file.seek(self.start)
            return file.read(self.stop - self.start)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class Reader(Protocol):
    """Reads stored tensors, as MappedFiles does: `array` in their own type, `floats` in float32."""

    def array(self, stored: StoredTensor) -> npt.NDArray[Any]: ...

    def floats(self, stored: StoredTensor) -> Floats: ...


@dataclass(frozen=True, slots=True)
class LowRank:
    """A change to a matrix [outputs, inputs]: add `scale` times the product of `up` [outputs, rank] and `down` [rank, inputs].

    With `magnitudes` [outputs], each row of the sum is then scaled to that Euclidean length. A matrix that is `turned` is stored
    [inputs, outputs].
    """

    down: StoredTensor
    up: StoredTensor
    scale: float
    magnitudes: StoredTensor | None = None
    turned: bool = False

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors of the adapter that hold the change."""
        return [self.down, self.up, *([] if self.magnitudes is None else [self.magnitudes])]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A tensor and the change that an adapter makes to it."""

    base: StoredTensor
    change: LowRank


class Narrow(NamedTuple):
    """The rows of a matrix as the files hold them, and the function that converts some of these rows to the wanted numbers."""

    rows: npt.NDArray[Any]
    convert: Callable[[npt.NDArray[Any]], Any]


class BlockParts(NamedTuple):
    """Rows of a matrix in ggml's blocks.

    A number in a block of 256 columns is integer * scale * factor - minimum * least, with a factor and a `least` for each block. In a block
    of 32 columns it is integer * factor + least, and `scales` and `minima` are None. Integers [rows, columns] of types without minima are
    too large by the number `zero` in src/model.h of the native executor.
    """

    integers: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.int8] | None
    minima: npt.NDArray[np.uint8] | None
    factors: npt.NDArray[np.float16]
    least: npt.NDArray[np.float16] | None


class Packed(ABC):
    """How a tensor's numbers are computed from other tensors in the files. Each subclass is a dataclass with these tensors as fields."""

    __slots__ = ()

    @property
    @abstractmethod
    def number_format(self) -> str:
        """The type in which memory holds the numbers if it holds them as floats."""

    @property
    @abstractmethod
    def stored_as(self) -> str:
        """The name of the form in the files, for people."""

    @abstractmethod
    def numbers(self, files: Reader) -> npt.NDArray[Any]:
        """The numbers, in the shape and the type of the stored tensor."""

    @property
    def panel_bits(self) -> int | None:
        """The bits, 8 or 4, of signed integers that are exactly this matrix together with a scale for each 32 columns.

        None if there are no such integers.
        """
        return None

    def panel(self, files: Reader) -> tuple[Narrow, Floats] | None:
        """The rows that give these integers, in words as panels.py of the native executor takes them, and their scales [rows, groups].

        None if the files, against what their settings promise, hold a matrix that such integers do not equal.
        """
        raise NotImplementedError

    @property
    def multiplied_as(self) -> str | None:
        """The ggml type ("Q4_K") in whose arithmetic the matrix is multiplied by vectors; None for one that is not in ggml's blocks."""
        return None

    def blocks(self, files: Reader) -> Narrow:
        """The rows that give BlockParts, for a matrix without `panel_bits` that has `multiplied_as`."""
        raise NotImplementedError

    @property
    def is_rounded(self) -> bool:
        """Whether a matrix without `panel_bits` is rounded to integers of 8 bits, because these hold its numbers well enough."""
        return False

    def by_rows(self, files: Reader) -> Narrow:
        """The rows that give floats, some rows at a time, for a matrix that `is_rounded`."""
        raise NotImplementedError

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors in the files from which the numbers come."""
        return [part for own in self._fields().values() if (part := getattr(own, "tensor", own)) and isinstance(part, StoredTensor)]

    def member(self, index: int) -> Packed:
        """The same for the `index`-th tensor of this stack."""
        members = {name: own.member(index) for name, own in self._fields().items() if isinstance(own, StoredTensor)}
        return replace(self, **members)  # type: ignore[type-var]

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def is_zero(tensor: StoredTensor) -> bool:
    """Whether a small tensor of floats holds nothing but zeros, of either sign."""
    content = tensor.content()
    size = len(content) // max(1, math.prod(tensor.shape))
    return not (np.frombuffer(content, f"<u{size}") << np.uint8(1)).any()
