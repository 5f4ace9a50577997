"""Tensors of GGUF's blocks: their numbers as floats, or as integers with a scale for each 32 columns where a type has these.

A row of a tensor is a row of blocks, each with its scales beside its numbers; ggml-common.h of llama.cpp has the layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.gguf.parts import TYPES, parts_of
from tgen.checkpoint.gguf.tables import IQ4
from tgen.checkpoint.quantised.mxfp4 import DOUBLED
from tgen.checkpoint.stored import Floats, Narrow, Packed, Reader, StoredTensor
from tgen.errors import UnsupportedError

Bytes = npt.NDArray[np.uint8]
AT_ONCE = 2**22  # bytes that are turned into floats at a time, to keep NumPy's temporary arrays small
# The types whose numbers are integers times a scale for each 32 columns, and the bits that hold these integers.
GROUPED = {"Q4_0": 4, "Q5_0": 8, "Q8_0": 8, "IQ4_NL": 8, "MXFP4": 8}
# The integers that four bits stand for.
TABLES = {"IQ4_NL": IQ4, "MXFP4": DOUBLED}


@dataclass(frozen=True, slots=True)
class Blocks(Packed):
    """Bytes [..., rows, bytes of a row], a row being whole blocks of the type that ggml calls `kind` ("Q4_K")."""

    bytes: StoredTensor
    kind: str

    @property
    def number_format(self) -> str:
        """The type of the floats: a number has 8 bits at most in the file, so narrow floats hold it."""
        return "BF16"

    @property
    def stored_as(self) -> str:
        """The type of the blocks, as ggml calls it."""
        return self.kind

    def numbers(self, files: Reader) -> Floats:
        """The numbers in float32, [..., rows, columns]."""
        found = floats(self._rows(files), self.kind)
        return found.reshape(*self.bytes.shape[:-1], -1)

    @property
    def panel_bits(self) -> int | None:
        """The bits of the integers, for types that have a scale for each 32 columns; None for the others."""
        return GROUPED.get(self.kind)

    def panel(self, files: Reader) -> tuple[Narrow, Floats]:
        """These integers, and the scales."""
        rows = self._rows(files)
        return Narrow(rows, partial(group_words, kind=self.kind)), group_scales(rows, self.kind)

    @property
    def multiplied_as(self) -> str | None:
        """llama.cpp multiplies all types with a scale for each 32 columns by vectors that it rounds in one way."""
        if self.kind in GROUPED:
            return f"Q{GROUPED[self.kind]}_0"
        return self.kind if self.kind in TYPES else None

    def blocks(self, files: Reader) -> Narrow:
        """What the blocks of a type with minima, or with scales of scales, are made of."""
        return Narrow(self._rows(files), partial(parts_of, kind=self.kind))

    @property
    def is_rounded(self) -> bool:
        """Always: whoever takes a file of blocks wants it small."""
        return True

    def by_rows(self, files: Reader) -> Narrow:
        """Floats of some rows at a time: all of them would take much memory."""
        return Narrow(self._rows(files), partial(floats, kind=self.kind))

    def _rows(self, files: Reader) -> Bytes:
        return files.array(self.bytes).reshape(-1, self.bytes.shape[-1])


def floats(blocks: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """The numbers of blocks [rows, bytes] of a type, [rows, columns]. Raises UnsupportedError without the gguf package."""
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError as error:
        message = f"weights in GGUF's type {kind} need the gguf package, which is not installed"
        raise UnsupportedError(message, "pip install 'tgen[gguf]'") from error
    step = max(1, AT_ONCE // max(1, blocks.shape[1]))
    parts: list[Any] = [dequantize(blocks[first : first + step], GGMLQuantizationType[kind]) for first in range(0, len(blocks), step)]
    return np.concatenate(parts)


def group_scales(blocks: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """The scales of blocks of a type that is GROUPED, [rows, groups]."""
    apart = _apart(blocks, kind)
    if kind == "MXFP4":
        return np.ldexp(np.float32(1), apart[..., 0].astype(np.int32) - 128)
    return np.ascontiguousarray(apart[..., :2]).view(np.float16)[..., 0].astype(np.float32)


def group_words(blocks: Bytes, kind: str) -> npt.NDArray[np.uint32]:
    """Their integers [rows, columns * bits / 32], the first columns in the lowest bits, each with 2^(bits - 1) added."""
    apart = _apart(blocks, kind)
    if kind == "Q8_0":
        numbers = apart[..., 2:] ^ np.uint8(128)
    elif kind == "Q4_0":
        quarters = _quarters(apart[..., 2:])  # they have 8 added already
        numbers = quarters[..., 0::2] | quarters[..., 1::2] << np.uint8(4)
    elif kind == "Q5_0":
        high = np.unpackbits(apart[..., 2:6], axis=-1, bitorder="little")
        numbers = (_quarters(apart[..., 6:]) | high << np.uint8(4)) + np.uint8(128 - 16)
    else:
        numbers = TABLES[kind][_quarters(apart[..., -16:])].view(np.uint8) ^ np.uint8(128)
    return np.ascontiguousarray(numbers).reshape(len(blocks), -1).view(np.uint32)


def _apart(blocks: Bytes, kind: str) -> Bytes:
    """The bytes of each block, [rows, blocks, bytes]."""
    size = {"Q8_0": 34, "Q5_0": 22, "MXFP4": 17}.get(kind, 18)
    return blocks.reshape(len(blocks), -1, size)


def _quarters(nibbles: Bytes) -> Bytes:
    """The numbers of four bits: the low halves of 16 bytes, then the high halves."""
    return np.concatenate((nibbles & np.uint8(15), nibbles >> np.uint8(4)), axis=-1)
