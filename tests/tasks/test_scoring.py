"""Windows over a long text: every token is scored once, from enough of what stands before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgen.sampling.logits import NumericalError
from tgen.tasks.score import Score
from tgen.tasks.scoring import windowed

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@steady
@given(st.integers(2, 60), st.integers(1, 70))
def test_windows_cover_each_token_once_and_overlap_by_half(length: int, context: int) -> None:
    before: dict[int, int] = {}

    def read(window: Sequence[int]) -> np.ndarray:
        assert 2 <= len(window) <= context + 1  # the last one is not read
        assert list(window) == list(range(window[0], window[0] + len(window)))
        for token in window[1:]:
            before.setdefault(token, token - window[0])
        return np.array(window[1:], dtype=np.float32)

    scored = np.concatenate(list(windowed(range(length), context, read)))
    assert scored.tolist() == list(range(1, length))
    assert all(count >= min(token, max(1, context // 2)) for token, count in before.items())


def test_the_part_that_counts_is_the_one_with_more_before_it() -> None:
    """Each log-probability is how many ids stood before it in the window that scored it."""
    parts = list(windowed(range(20), 6, lambda window: np.arange(1, len(window), dtype=np.float32)))
    assert [part.tolist() for part in parts] == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6], [3, 4, 5, 6], [3]]


def test_sums() -> None:
    score = Score(-6.0, tokens=3, size=4)
    assert score.perplexity == pytest.approx(math.exp(2))
    assert score.bits_per_byte == pytest.approx(6 / math.log(2) / 4)
    assert Score(-1e9, 1, 1).perplexity < math.inf
    assert math.isnan(Score(0.0, 0, 0).perplexity)
    assert math.isnan(Score(0.0, 0, 0).bits_per_byte)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_numbers_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(NumericalError, match="not finite among tokens 1 to 4"):
        list(windowed(range(9), 4, lambda window: np.full(len(window) - 1, bad, dtype=np.float32)))
