"""Reads matrices of floats of 8 bits with one scale for the tensor, for each row, or for each block of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.quantised.integers import blocks
from tgen.checkpoint.quantised.method import SCALES, Tensors, misfit
from tgen.checkpoint.stored import Floats, Packed, Reader, StoredTensor

FLOATS = ("F8_E4M3", "F8_E5M2")
POWERS = "F8_E8M0"  # scales that are powers of two: the type has only an exponent


def eight_bits(dtype: str) -> Floats:
    """The number of each byte of a type, [256] (OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0)."""
    byte = np.arange(256)
    if dtype == POWERS:
        return np.where(byte == 255, np.nan, 2.0 ** (byte - 127.0)).astype(np.float32)
    if dtype == "F8_E5M2":
        return (byte.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    exponent, fraction = byte >> 3 & 15, byte & 7
    size = np.where(exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0))
    size[(byte & 127) == 127] = np.nan  # E4M3 has no infinity
    return np.where(byte < 128, size, -size).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scaled(Packed):
    """Floats of 8 bits times scales [row blocks, column blocks]. A block has `rows` x `columns` numbers; the last ones may have fewer."""

    floats: StoredTensor
    scale: StoredTensor
    rows: int
    columns: int

    @property
    def number_format(self) -> str:
        """Always BF16, whose fraction has at least twice the bits of FP8's."""
        return "BF16"

    @property
    def stored_as(self) -> str:
        """Always FP8."""
        return "FP8"

    def numbers(self, files: Reader) -> Floats:
        """The matrix in float32."""
        array, scales = files.array(self.floats), files.floats(self.scale)
        values, (height, width) = eight_bits(self.floats.dtype), self.floats.shape
        across = np.arange(width) // self.columns
        down = np.arange(height) // self.rows
        matrix: npt.NDArray[np.float32] = np.empty((height, width), np.float32)
        for some in blocks(height, width):
            matrix[some] = values[array[some]] * scales[down[some]][:, across]
        return matrix


def scaled(module: str, parts: Tensors, matrix: StoredTensor, scale: StoredTensor, block: tuple[int, int] | None) -> StoredTensor:
    """A matrix of floats of 8 bits. The shape of `scale` tells whether it has one scale for the tensor, for each row or for each block.

    `block` is the rows and columns of a block, if config.json names them. Raises CheckpointError for tensors that do not fit each other.
    """
    if len(matrix.shape) != 2 or matrix.dtype not in FLOATS or scale.dtype not in (*SCALES, POWERS):
        raise misfit(module, parts, "a matrix of floats of 8 bits and its scales")
    rows, columns = matrix.shape
    if scale.shape in ((), (1,), (1, 1)):
        size, shape = (max(1, rows), max(1, columns)), (1, 1)
    elif scale.shape in ((rows,), (rows, 1)):
        size, shape = (1, max(1, columns)), (rows, 1)
    elif block is not None and scale.shape == (-(-rows // block[0]), -(-columns // block[1])):
        size, shape = block, scale.shape
    else:
        raise misfit(module, parts, "a scale for the tensor, for each row, or for each block that config.json names")
    flat = StoredTensor(scale.file, scale.dtype, shape, scale.start, scale.stop, scale.strides if len(scale.shape) == 2 else None)
    return StoredTensor(matrix.file, "F32", matrix.shape, packed=Scaled(matrix, flat, *size))
