"""Selection without a sort gives the result of a sort, for few values and for many, with and without equals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgen.sampling.selection import crossing, fewest, highest, ranked

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200)
values = st.lists(st.integers(-5, 5) | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=12)

SIZE = 20_000
RANDOM = np.random.default_rng(0)
MANY: dict[str, Any] = {
    "normal": RANDOM.normal(0, 3, SIZE),
    "few levels": RANDOM.integers(0, 3, SIZE),
    "all equal": np.zeros(SIZE),
    "ascending": np.linspace(-9, 9, SIZE),
    "descending": np.linspace(9, -9, SIZE),
    "one high": np.where(np.arange(SIZE) == 7, 1e30, RANDOM.normal(0, 1e-3, SIZE)),
    "nearly equal": 1 + RANDOM.integers(0, 3, SIZE) * 2.0**-23,
    "as far apart as can be": RANDOM.choice(np.array([-3e38, 0, 1, 3e38]), SIZE),
    "as near as can be": RANDOM.integers(0, 9, SIZE) * 2.0**-149,
    "far apart": -(2.0 ** RANDOM.integers(-100, 100, SIZE)),
    "masked": np.where(RANDOM.random(SIZE) < 0.5, -np.inf, RANDOM.normal(0, 1, SIZE)),
    "in one group": np.where(np.arange(SIZE) % (SIZE // 128) == 5, RANDOM.normal(50, 1, SIZE), RANDOM.normal(0, 1, SIZE)),
    "high in front": np.concatenate([RANDOM.normal(50, 1, 500), RANDOM.normal(0, 1, SIZE - 500)]),
}
every_many = pytest.mark.parametrize("name", MANY)


def ordered(given: np.ndarray) -> list[int]:
    """All places, highest first; lower places first among equals."""
    return sorted(range(len(given)), key=lambda place: (-given[place], place))


def assert_fewest(given: np.ndarray, weights: np.ndarray, target: float) -> None:
    order = ordered(given)
    sums = np.cumsum(weights[order])
    needed = next((n for n, total in enumerate(sums, start=1) if total >= target), len(order))
    places, slack = fewest(given, weights, target)
    assert places.tolist() == sorted(order[:needed])
    assert slack == pytest.approx(min(sums[needed - 1] - target, target - sums[needed - 2] if needed > 1 else np.inf), abs=1e-6)


@steady
@given(values, st.integers(0, 14))
def test_highest_and_ranked(given: list[float], count: int) -> None:
    array = np.array(given, dtype=np.float32)
    assert highest(array, count).tolist() == sorted(ordered(array)[:count])
    assert ranked(array, count).tolist() == ordered(array)[:count]


@steady
@given(values, st.data())
def test_fewest(given: list[float], data: st.DataObject) -> None:
    array = np.array(given, dtype=np.float32)
    weights = np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(given), max_size=len(given))), dtype=np.float64)
    assert_fewest(array, weights, data.draw(st.integers(0, int(weights.sum()))) - 0.5)


@steady
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.integers(-1, 110))
def test_crossing(given: list[int], target: int) -> None:
    weights = np.array(given, dtype=np.float64)
    sums = np.cumsum(weights)
    reached = next((place for place, total in enumerate(sums) if total >= target), None)
    if reached is not None:
        assert crossing(weights, target, "left") == reached
    exceeded = crossing(weights, target, "right")
    assert weights[exceeded] > 0, "nothing without weight is ever drawn"
    if target < sums[-1]:
        assert exceeded == next(place for place, total in enumerate(sums) if total > max(target, 0))


@every_many
@pytest.mark.parametrize("count", [1, 2, 40, 127, 1000, SIZE - 1, SIZE])
def test_highest_of_many(name: str, count: int) -> None:
    array = MANY[name].astype(np.float32)
    assert highest(array, count).tolist() == sorted(ordered(array)[:count])


@every_many
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.3, 0.8, 0.999])
def test_fewest_of_many(name: str, share: float) -> None:
    array = MANY[name].astype(np.float32)
    weights = np.random.default_rng(1).integers(1, 1000, SIZE) * (array > -np.inf).astype(np.float64)
    assert_fewest(array, weights, np.floor(share * weights.sum()) + 0.5)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999, 1.0, 1.1])
def test_crossing_of_many(share: float) -> None:
    weights = np.random.default_rng(2).integers(0, 3, SIZE).astype(np.float64)
    weights[-100:] = weights[:100] = 0
    sums, target = np.cumsum(weights), np.floor(share * weights.sum()) + 0.5
    expected = int(np.argmax(sums > min(target, sums[-1] - 0.5)))
    assert crossing(weights, target, "right") == crossing(weights, target, "left") == expected
    assert crossing(weights, -1, "right") == np.flatnonzero(weights)[0]
