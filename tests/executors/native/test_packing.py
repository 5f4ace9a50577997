"""Matrices packed to 8 and 4 bits hold what they held, within the rounding of their format."""

from __future__ import annotations

import numpy as np
import pytest

from tests.executors.native.models import LIBRARY
from tgen.executors.native import interface as c
from tgen.executors.native.packing import pack
from tgen.executors.native.weights import StoredMatrix


def unpacked(packed: StoredMatrix) -> np.ndarray:
    """The numbers of a packed matrix, by the layout that src/pack.cpp describes."""
    four = packed.format == c.INT4
    each = 256 if four else 512
    pairs = packed.data.reshape(-(-packed.rows // 16), -(-packed.columns // 64), 64 + 2 * each)
    scales = pairs[..., :64].copy().view(np.float16).reshape(*pairs.shape[:2], 2, 16)
    quartets = pairs[..., 64:].reshape(*pairs.shape[:2], 2, -1, 16, 4)
    if four:
        quartets = np.concatenate([quartets & 15, quartets >> 4], axis=3)
    weights = (quartets.astype(np.float32) - (8 if four else 128)) * scales[:, :, :, None, :, None].astype(np.float32)
    rows = weights.transpose(0, 4, 1, 2, 3, 5).reshape(pairs.shape[0] * 16, -1)
    assert not rows[packed.rows :].any(), "rows beyond the matrix are zero"
    return rows[: packed.rows, : packed.columns]


@pytest.mark.parametrize(("number_format", "most"), [(c.INT8, 0.01), (c.INT4, 0.1)])
@pytest.mark.parametrize("shape", [(32, 64), (17, 100), (3, 31)])
def test_packed_numbers_are_close(shape: tuple[int, int], number_format: int, most: float) -> None:
    assert LIBRARY is not None
    numbers = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = unpacked(pack(LIBRARY, StoredMatrix(c.FLOAT32, *shape, numbers), number_format, 2))
    assert np.linalg.norm(found - numbers) < most * np.linalg.norm(numbers)


def test_four_bits_hold_whole_numbers_exactly() -> None:
    """From -8 to 7 where the largest is negative, from -7 to 8 where it is positive."""
    assert LIBRARY is not None
    numbers = np.tile(np.arange(-8, 8, dtype=np.float32), (2, 2))
    numbers[1] *= -1
    assert np.array_equal(unpacked(pack(LIBRARY, StoredMatrix(c.FLOAT32, 2, 32, numbers), c.INT4, 1)), numbers)
