"""Takes ggml's blocks apart into integers, scales and minima, for the types with minima or with nested scales.

A type with nested scales has one factor for 256 numbers, and an integer scale for each 16 or 32 of them that the factor multiplies.
ggml-common.h of llama.cpp has the layouts. Every reader of a type takes blocks [..., bytes of a block].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.gguf.tables import IQ4
from tgen.checkpoint.stored import BlockParts

Bytes = npt.NDArray[np.uint8]
# Integers, scales, minima, and as bytes in float16 the factor of the scales and that of the minima (`least` in BlockParts).
Read = tuple[Bytes, Bytes | None, Bytes | None, Bytes, Bytes | None]


def parts_of(blocks: Bytes, kind: str) -> BlockParts:
    """The parts of blocks [rows, bytes] of one type."""
    size, read = TYPES[kind]
    integers, scales, minima, factors, least = read(blocks.reshape(len(blocks), -1, size))
    rows = len(blocks)
    return BlockParts(
        integers.reshape(rows, -1),
        None if scales is None else np.ascontiguousarray(scales).view(np.int8).reshape(rows, -1),
        None if minima is None else minima.reshape(rows, -1),
        _halves(factors),
        None if least is None else _halves(least),
    )


def _q4_1(blocks: Bytes) -> Read:
    return _nibbles(blocks[..., 4:], 16), None, None, blocks[..., :2], blocks[..., 2:4]


def _q5_1(blocks: Bytes) -> Read:
    high = np.unpackbits(blocks[..., 4:8], axis=-1, bitorder="little")
    return _nibbles(blocks[..., 8:], 16) | high << np.uint8(4), None, None, blocks[..., :2], blocks[..., 2:4]


def _q2_k(blocks: Bytes) -> Read:
    scales = blocks[..., :16]
    return _crumbs(blocks[..., 16:80]), scales & np.uint8(15), scales >> np.uint8(4), blocks[..., 80:82], blocks[..., 82:84]


def _q3_k(blocks: Bytes) -> Read:
    """These integers are 4 too large: ggml subtracts 4 where the high bit, which adds 4 here, is not set."""
    scales = _crumbs_of(blocks[..., 104:108], 4) << np.uint8(4) | _nibbles(blocks[..., 96:104], 8)
    return _crumbs(blocks[..., 32:96]) | _bits(blocks[..., :32]) << np.uint8(2), scales - np.uint8(32), None, blocks[..., 108:110], None


def _q4_k(blocks: Bytes) -> Read:
    return _nibbles(blocks[..., 16:], 32), *_six_bits(blocks[..., 4:16]), blocks[..., :2], blocks[..., 2:4]


def _q5_k(blocks: Bytes) -> Read:
    integers = _nibbles(blocks[..., 48:], 32) | _bits(blocks[..., 16:48]) << np.uint8(4)
    return integers, *_six_bits(blocks[..., 4:16]), blocks[..., :2], blocks[..., 2:4]


def _q6_k(blocks: Bytes) -> Read:
    """These integers are 32 too large, as in the file: ggml subtracts 32 from each."""
    integers = _nibbles(blocks[..., :128], 64) | _crumbs(blocks[..., 128:192]) << np.uint8(4)
    return integers, blocks[..., 192:208], None, blocks[..., 208:], None


def _iq4_xs(blocks: Bytes) -> Read:
    """These integers are 128 too large: the table has signed numbers."""
    high = blocks[..., 2:4].astype(np.uint8)
    low = blocks[..., 4:8, None] >> np.array([0, 4], np.uint8) & np.uint8(15)
    scales = low.reshape(*low.shape[:-2], 8) | _sides(high, 4).reshape(*high.shape[:-1], 8) << np.uint8(4)
    return IQ4[_nibbles(blocks[..., 8:], 16)].view(np.uint8) ^ np.uint8(128), scales - np.uint8(32), None, blocks[..., :2], None


# For each type, the bytes of a block and the function that reads it.
TYPES: dict[str, tuple[int, Callable[[Bytes], Read]]] = {
    "Q4_1": (20, _q4_1),
    "Q5_1": (24, _q5_1),
    "Q2_K": (84, _q2_k),
    "Q3_K": (110, _q3_k),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
    "IQ4_XS": (136, _iq4_xs),
}


def _halves(numbers: Bytes) -> npt.NDArray[np.float16]:
    return np.ascontiguousarray(numbers).view(np.float16).reshape(len(numbers), -1)


def _nibbles(packed: Bytes, count: int) -> Bytes:
    """For each run of `count` bytes, the low halves of all of them and then the high halves."""
    apart = packed.reshape(*packed.shape[:-1], -1, 1, count) >> np.array([[0], [4]], np.uint8) & np.uint8(15)
    return apart.reshape(*packed.shape[:-1], -1)


def _crumbs(packed: Bytes) -> Bytes:
    """For each run of 32 bytes, the lowest two bits of all of them, then the next two bits, and so on."""
    return _crumbs_of(packed, 32)


def _crumbs_of(packed: Bytes, count: int) -> Bytes:
    apart = packed.reshape(*packed.shape[:-1], -1, 1, count) >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)
    return apart.reshape(*packed.shape[:-1], -1)


def _bits(packed: Bytes) -> Bytes:
    """The lowest bit of all 32 bytes, then the next bit of all, and so on."""
    apart = packed[..., None, :] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    return apart.reshape(*packed.shape[:-1], -1)


def _sides(packed: Bytes, count: int) -> Bytes:
    """The `count` pairs of bits of each byte, the lowest pair first."""
    return packed[..., None] >> np.arange(0, 2 * count, 2, dtype=np.uint8) & np.uint8(3)


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of six bits each, in twelve bytes."""
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate((first & np.uint8(63), third & np.uint8(15) | first >> np.uint8(2) & np.uint8(0x30)), axis=-1)
    return scales, np.concatenate((second & np.uint8(63), third >> np.uint8(4) | second >> np.uint8(2) & np.uint8(0x30)), axis=-1)
