"""The numbers of GGUF's blocks: as floats, or as integers with a scale for each 32 columns where a type has these.

A row of a tensor is a row of blocks, each with its scales beside its numbers; ggml-common.h of llama.cpp has the layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.errors import UnsupportedError

Bytes = npt.NDArray[np.uint8]
AT_ONCE = 2**22  # bytes that are turned into floats at a time, to keep NumPy's temporary arrays small
# The types whose numbers are integers times a scale for each 32 columns, and the bits that hold these integers.
GROUPED = {"Q4_0": 4, "Q5_0": 8, "Q8_0": 8, "IQ4_NL": 8, "MXFP4": 8}
# The integers that four bits stand for: those of IQ4_NL, and twice the numbers of MXFP4.
TABLES = {
    "IQ4_NL": np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8),
    "MXFP4": np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8),
}


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
