"""Makes the panels of packed matrices from integers and scales as checkpoints store them, and the integers from panels.

src/kernels/pack.h has the layout of panels. Matrices in ggml's blocks with minima or nested scales have another one, which is in
src/kernels/gguf/blocks.h. Integers for panels are stored in words, uint32 [rows, columns * bits / 32]: the first columns are in the lowest
bits, and 2^(bits - 1) is added to each integer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.stored import BlockParts
from tgen.executors.native import interface as c
from tgen.executors.native.interface import LANES

Words = npt.NDArray[np.uint32]
Halves = npt.NDArray[np.float16]

GROUP = 32
PAIR = 2 * GROUP  # columns of a block without nested scales
SCALE_WORDS = 16  # words of 4 bytes that hold the scales of a pair of groups: two float16 numbers for each row of a panel
ZEROS = {4: 0x88888888, 8: 0x80808080}  # a word in which every integer is 0
BITS = {c.INT8: 8, c.INT4: 4, c.Q8_0: 8, c.Q4_0: 4}  # the bits of the integers in such words


def matrix_bytes(number_format: int, rows: int, columns: int) -> int:
    """The bytes of a matrix in panels of a format."""
    if number_format in BITS:
        return panel_bytes(BITS[number_format], rows, columns)
    blocks = c.BLOCKS[number_format]
    scales = blocks.columns // blocks.width * LANES * (1 + blocks.minima)
    head = 64 + scales if blocks.columns > 2 * GROUP else 2 * 4 * SCALE_WORDS
    each = head + blocks.columns * LANES * (blocks.low + blocks.high) // 8
    return -(-rows // LANES) * -(-columns // blocks.columns) * each


def panel_bytes(bits: int, rows: int, columns: int) -> int:
    """The bytes of a matrix in panels of integers, as panel_bytes in src/model.h counts them for one panel. They are a multiple of 64."""
    return -(-rows // LANES) * -(-columns // (2 * GROUP)) * (4 * SCALE_WORDS + 2 * LANES * GROUP * bits // 8)


def panels(words: Words, scales: Halves, bits: int) -> Words:
    """The panels [panels, pairs of groups, words of a pair] of a matrix whose columns are whole groups. `scales` are [rows, groups]."""
    each = GROUP * bits // 32
    panel_count, pairs = -(-len(words) // LANES), -(-scales.shape[1] // 2)
    padding = ((0, panel_count * LANES - len(words)), (0, 2 * pairs - scales.shape[1]))
    scales = np.pad(scales, padding)
    words = np.pad(words, (padding[0], (0, padding[1][1] * each)), constant_values=ZEROS[bits])
    weights = words.reshape(panel_count, LANES, pairs, 2, each)
    if bits == 4:
        quartets = np.stack((weights & np.uint32(0xFFFF), weights >> np.uint32(16)), axis=-1).reshape(panel_count, LANES, pairs, 2, 8)
        weights = _spread(quartets[..., :4]) | _spread(quartets[..., 4:]) << np.uint32(4)
    weights = weights.transpose(0, 2, 3, 4, 1).reshape(panel_count, pairs, -1)
    halves = np.ascontiguousarray(scales.reshape(panel_count, LANES, pairs, 2).transpose(0, 2, 3, 1)).reshape(panel_count, pairs, -1)
    return np.concatenate((halves.view(np.uint32), weights), axis=-1)


def integers(packed: Words, bits: int, rows: int, columns: int) -> tuple[Words, Halves]:
    """The words and scales of a matrix whose columns are whole groups, from its panels."""
    panel_count, pairs = -(-rows // LANES), -(-columns // (2 * GROUP))
    packed = packed.reshape(panel_count, pairs, -1)
    halves = np.ascontiguousarray(packed[..., :SCALE_WORDS]).view(np.float16).reshape(panel_count, pairs, 2, LANES)
    scales = halves.transpose(0, 3, 1, 2).reshape(panel_count * LANES, -1)
    weights = packed[..., SCALE_WORDS:].reshape(panel_count, pairs, 2, -1, LANES).transpose(0, 4, 1, 2, 3)
    if bits == 4:
        quartets = np.concatenate((_gathered(weights), _gathered(weights >> np.uint32(4))), axis=-1)
        weights = quartets[..., 0::2] | quartets[..., 1::2] << np.uint32(16)
    words = weights.reshape(panel_count * LANES, -1)
    return np.ascontiguousarray(words[:rows, : columns * bits // 32]), np.ascontiguousarray(scales[:rows, : columns // GROUP])


def _spread(quartets: Words) -> Words:
    """Four integers of 4 bits that lie side by side, each moved into its own byte."""
    apart = [(quartets & np.uint32(0xF << 4 * place)) << np.uint32(4 * place) for place in range(4)]
    spread: Words = apart[0] | apart[1] | apart[2] | apart[3]
    return spread


def _gathered(words: Words) -> Words:
    """The low 4 bits of each byte, side by side."""
    parts = [words >> np.uint32(4 * place) & np.uint32(0xF << 4 * place) for place in range(4)]
    gathered: Words = parts[0] | parts[1] | parts[2] | parts[3]
    return gathered


def block_panels(parts: BlockParts, number_format: int) -> npt.NDArray[np.uint8]:
    """The panels of a matrix in ggml's blocks, [panels, blocks, bytes]."""
    form = c.BLOCKS[number_format]
    numbers = _by_panel(parts.integers, form.columns)
    count = numbers.shape[2]
    each = 1 if form.columns > PAIR else 2  # factors of a block
    least = np.zeros_like(parts.factors) if parts.least is None else parts.least
    pieces = [_flat(_by_panel(one, each).transpose(0, 2, 3, 1)) for one in (parts.factors, least)]
    for one in (parts.scales, parts.minima):
        if one is not None:
            pieces.append(_flat(_by_panel(one, form.columns // form.width).transpose(0, 2, 3, 1)))
    quartets = numbers.reshape(len(numbers), LANES, count, -1, 2, 4, 4)
    if form.low == 8:
        pieces.append(_flat(quartets.reshape(len(numbers), LANES, count, -1, 4).transpose(0, 2, 3, 1, 4)))
    else:
        low = quartets & np.uint8(15)
        pieces.append(_flat((low[..., 0, :, :] | low[..., 1, :, :] << np.uint8(4)).transpose(0, 2, 3, 4, 1, 5)))
    if form.high:
        high = (quartets >> np.uint8(4)) << np.array([0, 2, 4, 6], np.uint8)[:, None]
        pieces.append(_flat(np.bitwise_or.reduce(high, axis=-2).transpose(0, 2, 3, 4, 1, 5)))
    return np.concatenate(pieces, axis=-1)


def _by_panel(array: npt.NDArray[Any], each: int) -> npt.NDArray[Any]:
    """Rows and columns padded with zeros to whole panels and blocks of `each` columns, [panels, 16, blocks, each]."""
    rows, columns = -(-len(array) // LANES), -(-array.shape[1] // each)
    padded = np.pad(array, ((0, rows * LANES - len(array)), (0, columns * each - array.shape[1])))
    return padded.reshape(rows, LANES, columns, each)


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of [panels, blocks, ...]."""
    return np.ascontiguousarray(array).view(np.uint8).reshape(*array.shape[:2], -1)
