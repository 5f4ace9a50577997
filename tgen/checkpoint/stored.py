"""One tensor of a checkpoint: its type, its shape, and where it lies in a file or from which other tensors it is computed."""

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
    """One tensor of a checkpoint: its file, the type it is stored in ("F32", "BF16" ...), its shape.

    `start` and `stop` are byte offsets into the file. `strides` count numbers; None means row-major order. A tensor with `packed` is not
    in the file as it is: its numbers, in the type `dtype`, are computed. A packed matrix is always [outputs, inputs]. The numbers of one
    with `adapted` are those of another tensor and the change that an adapter makes to them.
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
        """The type to hold the numbers in: about as precise as the file, but F32 for F64, which no model needs.

        An adapter's change is rounded to the type of its base.
        """
        if self.adapted is not None:
            return self.adapted.base.number_format
        if self.packed is not None:
            return self.packed.number_format
        return "F32" if self.dtype == "F64" else self.dtype

    @property
    def stored_as(self) -> str:
        """The type that it has in the file, for people."""
        if self.adapted is not None:
            return self.adapted.base.stored_as
        return self.dtype if self.packed is None else self.packed.stored_as

    @property
    def is_narrow(self) -> bool:
        """Whether its numbers have fewer than 16 bits each."""
        return self.packed is not None

    @property
    def is_upright(self) -> bool:
        """Whether its rows are outputs whatever the family's matrices are, because it or its base is packed."""
        return self.adapted.base.is_upright if self.adapted is not None else self.packed is not None

    @property
    def nbytes(self) -> int:
        """How many bytes of the files it takes."""
        return sum(part.stop - part.start for part in self.parts)

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors that hold it in the files."""
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
        """The `index`-th tensor of a stack, which is in row-major order."""
        if self.packed is not None:
            return replace(self, shape=self.shape[1:], packed=self.packed.member(index))
        size = (self.stop - self.start) // self.shape[0]
        return replace(self, shape=self.shape[1:], start=self.start + index * size, stop=self.start + (index + 1) * size)

    def content(self) -> bytes:
        """The bytes of a small tensor, which the file is opened for. Raises OSError."""
        with open(self.file, "rb") as file:
            file.seek(self.start)
            return file.read(self.stop - self.start)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class Reader(Protocol):
    """Reads stored tensors."""

    def array(self, stored: StoredTensor) -> npt.NDArray[Any]: ...

    def floats(self, stored: StoredTensor) -> Floats: ...


@dataclass(frozen=True, slots=True)
class LowRank:
    """A change of a matrix [outputs, inputs] by `scale` times the product of `up` [outputs, rank] and `down` [rank, inputs].

    With `magnitudes` [outputs], each row of the sum is stretched to that length. A matrix that is `turned` is stored [inputs, outputs].
    """

    down: StoredTensor
    up: StoredTensor
    scale: float
    magnitudes: StoredTensor | None = None
    turned: bool = False

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors that hold it."""
        return [self.down, self.up, *([] if self.magnitudes is None else [self.magnitudes])]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A tensor and the change that an adapter makes to it."""

    base: StoredTensor
    change: LowRank


class Narrow(NamedTuple):
    """The rows of a matrix as the files hold them, and what makes the wanted numbers of some of these rows."""

    rows: npt.NDArray[Any]
    made: Callable[[npt.NDArray[Any]], Any]


class BlockParts(NamedTuple):
    """Rows of a matrix in ggml's blocks: integers [rows, columns], each times its scale, less its minimum.

    Each block of 256 columns has a factor of its scales, and one of its minima (`least`); of 32 columns, the factor is the scale and
    `least` is added. Integers of types without minima stand above zero by as much as src/model.h of the native executor says.
    """

    integers: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.int8] | None
    minima: npt.NDArray[np.uint8] | None
    factors: npt.NDArray[np.float16]
    least: npt.NDArray[np.float16] | None


class Packed(ABC):
    """How a tensor's numbers are computed from other tensors in the files; each kind is a dataclass that has them as its fields."""

    __slots__ = ()

    @property
    @abstractmethod
    def number_format(self) -> str:
        """The type to hold the numbers in where they are held as floats."""

    @property
    @abstractmethod
    def stored_as(self) -> str:
        """The form in the files, for people."""

    @abstractmethod
    def numbers(self, files: Reader) -> npt.NDArray[Any]:
        """The numbers, in the shape and the type that the stored tensor says."""

    @property
    def panel_bits(self) -> int | None:
        """The bits of the signed integers, 8 or 4, that together with a scale for each 32 columns are the same matrix.

        None for a matrix that no such integers are equal to.
        """
        return None

    def panel(self, files: Reader) -> tuple[Narrow, Floats] | None:
        """What panels.py of the native executor makes these integers of, and their scales [rows, groups].

        None if the files hold a matrix that such integers are not equal to, whatever the settings say.
        """
        raise NotImplementedError

    @property
    def multiplied_as(self) -> str | None:
        """The type, by ggml's name, whose products with vectors a matrix has in llama.cpp; None for one that is not from there."""
        return None

    def blocks(self, files: Reader) -> Narrow:
        """What gives the BlockParts of some rows at a time, for a matrix without `panel_bits` that is multiplied as one of these types."""
        raise NotImplementedError

    @property
    def is_rounded(self) -> bool:
        """Whether integers of 8 bits hold the numbers well enough, so that they need not become floats of 16 bits.

        This counts for a matrix without `panel_bits`.
        """
        return False

    def by_rows(self, files: Reader) -> Narrow:
        """What gives the floats of some rows at a time, for numbers that are rounded."""
        raise NotImplementedError

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors in the files."""
        return [part for own in self._fields().values() if (part := getattr(own, "tensor", own)) and isinstance(part, StoredTensor)]

    def member(self, index: int) -> Packed:
        """The `index`-th tensor of a stack."""
        members = {name: own.member(index) for name, own in self._fields().items() if isinstance(own, StoredTensor)}
        return replace(self, **members)  # type: ignore[type-var]

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def is_zero(tensor: StoredTensor) -> bool:
    """Whether a small tensor of floats holds nothing but zeros, of either sign."""
    content = tensor.content()
    size = len(content) // max(1, math.prod(tensor.shape))
    return not (np.frombuffer(content, f"<u{size}") << np.uint8(1)).any()
