"""Reads MXFP4 in the layout of GPT-OSS: stacks of experts as floats of 4 bits, with a power of two as the scale of each block of 32.

NAME is stored as NAME_blocks [experts, outputs, blocks, 16] in bytes and NAME_scales [experts, outputs, blocks]. The tensor made of them
keeps the name NAME_blocks, because NAME in a folder that is not quantised has rows and columns exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.quantised.integers import Bytes, packed
from tgen.checkpoint.quantised.method import Allowed, Form, Method, Tensors, check, folded, misfit
from tgen.checkpoint.stored import Floats, Narrow, Packed, Reader, StoredTensor, Words

CONFIG: Allowed = {"quant_method": ("mxfp4",), "modules_to_not_convert": None, "dequantize": (False, True)}
GROUP = 32  # numbers in a block
NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # OCP Microscaling Formats 1.0, E2M1; the highest bit is the sign
# The number of each code in bfloat16, and twice the number as an integer.
IN_BFLOAT16 = (np.array([*NUMBERS, *(-number for number in NUMBERS)], np.float32).view(np.uint32) >> 16).astype(np.uint16)
DOUBLED = np.array([2 * number for number in (*NUMBERS, *(-number for number in NUMBERS))]).astype(np.int8)


@dataclass(frozen=True, slots=True)
class FourBits(Packed):
    """Bytes [..., rows, blocks, 16] with two codes each, the lower half first, and exponents [..., rows, blocks] with 127 added."""

    codes: StoredTensor
    scale: StoredTensor

    @property
    def number_format(self) -> str:
        """Always BF16, which holds every number exactly unless it is out of range."""
        return "BF16"

    @property
    def stored_as(self) -> str:
        """Always MXFP4."""
        return "MXFP4"

    def numbers(self, files: Reader) -> npt.NDArray[np.uint16]:
        """The numbers in bfloat16."""
        return unpacked(files.array(self.codes), files.array(self.scale))

    @property
    def panel_bits(self) -> int:
        """Always 8: twice a number is an integer from -12 to 12."""
        return 8

    def panel(self, files: Reader) -> tuple[Narrow, Floats]:
        """The rows that give the doubled numbers as integers, and half the scales."""
        return Narrow(files.array(self.codes), _words), np.ldexp(np.float32(1), files.array(self.scale).astype(np.int32) - 128)


def _words(codes: Bytes) -> Words:
    """The doubled numbers of some rows [rows, blocks, 16] as integers of 8 bits, packed into words."""
    integers = np.stack((DOUBLED[codes & 15], DOUBLED[codes >> 4]), axis=-1).reshape(len(codes), -1)
    return packed(integers.view(np.uint8) ^ np.uint8(128), 8)


def unpacked(codes: Bytes, scales: Bytes) -> npt.NDArray[np.uint16]:
    """The bfloat16 numbers [..., blocks * 32] of blocks [..., blocks, 16] and scales [..., blocks].

    A block's numbers are multiplied by 2 ** (scale - 127). Results are exact, except that those below the smallest normal number of
    bfloat16 become 0, and those above the largest become infinite.
    """
    pairs = np.stack((IN_BFLOAT16[codes & 15], IN_BFLOAT16[codes >> 4]), axis=-1).reshape(*scales.shape, GROUP)
    exponent = (pairs >> 7 & 255).astype(np.int16) + scales.astype(np.int16)[..., None] - 127
    kept, whole = pairs & 0x807F, np.clip(exponent, 0, 255).astype(np.uint16) << 7
    zero = (pairs & 0x7FFF == 0) | (exponent <= 0)
    found = np.where(zero, pairs & 0x8000, np.where(exponent >= 255, pairs & 0x8000 | 0x7F80, kept | whole))
    return found.reshape(*scales.shape[:-1], -1)


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    check(found, CONFIG)
    return partial(folded, forms=(Form("_blocks", ("_scales",), _weight, result="_blocks"),))


def _weight(module: str, parts: Tensors) -> StoredTensor:
    codes, scale = parts["_blocks"], parts["_scales"]
    if (codes.dtype, scale.dtype) != ("U8", "U8") or len(codes.shape) != 4 or codes.shape != (*scale.shape, 16):
        raise misfit(module, parts, "blocks of 16 bytes and a byte of scale for each")
    return StoredTensor(codes.file, "BF16", (*scale.shape[:-1], GROUP * scale.shape[-1]), packed=FourBits(codes, scale))
