"""Reads tensors in ggml's blocks: as floats, or as integers with a scale for each 32 columns where the type has such scales.

A row of a tensor is a row of blocks. Each block holds some numbers and their scales; ggml-common.h of llama.cpp has the layouts.
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
# The types whose numbers are integers times a scale for each 32 columns, and the bits that a panel of the native executor gives an integer.
GROUPED = {"Q4_0": 4, "Q5_0": 8, "Q8_0": 8, "IQ4_NL": 8, "MXFP4": 8}
# The integer of each code of four bits, for types that have such a table.
TABLES = {"IQ4_NL": IQ4, "MXFP4": DOUBLED}


@dataclass(frozen=True, slots=True)
class Blocks(Packed):
    """Bytes [..., rows, bytes of a row]. A row consists of whole blocks of the type that ggml calls `kind` ("Q4_K")."""

    bytes: StoredTensor
    kind: str

    @property
    def number_format(self) -> str:
        """Always BF16: the file has at most 8 bits for a number, so floats of 16 bits are precise enough."""
        return "BF16"

    @property
    def stored_as(self) -> str:
        """The type of the blocks, by ggml's name."""
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
        """The rows that give the panel's integers, and their scales [rows, groups]."""
        rows = self._rows(files)
        return Narrow(rows, partial(group_words, kind=self.kind)), group_scales(rows, self.kind)

    @property
    def multiplied_as(self) -> str | None:
        """The ggml type of the arithmetic; Q4_0 or Q8_0 for all GROUPED types, because llama.cpp rounds the vectors alike for them."""
        if self.kind in GROUPED:
            return f"Q{GROUPED[self.kind]}_0"
        return self.kind if self.kind in TYPES else None

    def blocks(self, files: Reader) -> Narrow:
        """The rows that give BlockParts, for types with minima or nested scales."""
        return Narrow(self._rows(files), partial(parts_of, kind=self.kind))

    @property
    def is_rounded(self) -> bool:
        """Always true: the file was quantised to save memory, so integers of 8 bits hold its numbers rather than floats of 16."""
        return True

    def by_rows(self, files: Reader) -> Narrow:
        """The rows that give floats, some rows at a time, because all floats at once would take much memory."""
        return Narrow(self._rows(files), partial(floats, kind=self.kind))

    def _rows(self, files: Reader) -> Bytes:
        return files.array(self.bytes).reshape(-1, self.bytes.shape[-1])


def floats(blocks: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """The numbers [rows, columns] of blocks [rows, bytes] of one type. Raises UnsupportedError without the gguf package."""
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError as error:
        message = f"weights in GGUF's type {kind} need the gguf package, which is not installed"
        raise UnsupportedError(message, "pip install 'tgen[gguf]'") from error
    step = max(1, AT_ONCE // max(1, blocks.shape[1]))
    parts: list[Any] = [dequantize(blocks[first : first + step], GGMLQuantizationType[kind]) for first in range(0, len(blocks), step)]
    return np.concatenate(parts)


def group_scales(blocks: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """The scales [rows, groups] of blocks [rows, bytes] of a type in GROUPED."""
    apart = _apart(blocks, kind)
    if kind == "MXFP4":
        return np.ldexp(np.float32(1), apart[..., 0].astype(np.int32) - 128)
    return np.ascontiguousarray(apart[..., :2]).view(np.float16)[..., 0].astype(np.float32)


def group_words(blocks: Bytes, kind: str) -> npt.NDArray[np.uint32]:
    """The integers of such blocks in words [rows, columns * bits / 32].

    The first columns are in the lowest bits, and 2^(bits - 1) is added to each integer.
    """
    apart = _apart(blocks, kind)
    if kind == "Q8_0":
        numbers = apart[..., 2:] ^ np.uint8(128)
    elif kind == "Q4_0":
        codes = _nibbles(apart[..., 2:])  # 8 is added to each already
        numbers = codes[..., 0::2] | codes[..., 1::2] << np.uint8(4)
    elif kind == "Q5_0":
        high = np.unpackbits(apart[..., 2:6], axis=-1, bitorder="little")
        numbers = (_nibbles(apart[..., 6:]) | high << np.uint8(4)) + np.uint8(128 - 16)
    else:
        numbers = TABLES[kind][_nibbles(apart[..., -16:])].view(np.uint8) ^ np.uint8(128)
    return np.ascontiguousarray(numbers).reshape(len(blocks), -1).view(np.uint32)


def _apart(blocks: Bytes, kind: str) -> Bytes:
    """The bytes of each block, [rows, blocks, bytes]."""
    size = {"Q8_0": 34, "Q5_0": 22, "MXFP4": 17}.get(kind, 18)
    return blocks.reshape(len(blocks), -1, size)


def _nibbles(packed: Bytes) -> Bytes:
    """The integers of four bits: the low halves of 16 bytes, then the high halves."""
    return np.concatenate((packed & np.uint8(15), packed >> np.uint8(4)), axis=-1)
