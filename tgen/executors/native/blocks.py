"""The panels of matrices in ggml's blocks with minima, or with scales of scales (src/kernels/blocks.h has their layout)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.stored import BlockParts
from tgen.executors.native import interface as c
from tgen.executors.native.interface import LANES
from tgen.executors.native.panels import GROUP

PAIR = 2 * GROUP  # columns of a block without scales of scales


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
