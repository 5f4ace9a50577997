"""The passes over a whole vocabulary find the same in the native library and in NumPy, and a first look never changes a result."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.sampling import DISTRIBUTIONS, VOCAB, peaked
from tgen.sampling import logits as passes
from tgen.sampling.candidates import ROUGH, Candidates
from tgen.sampling.logits import BLOCK, NumericalError, group_maxima, places_from, require_finite, rough_sums
from tgen.sampling.nucleus import nucleus
from tgen.sampling.selection import crossing, fewest

every_kind = pytest.mark.parametrize("kind", DISTRIBUTIONS)


@pytest.fixture(params=["library", "NumPy"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "NumPy":
        monkeypatch.setattr(passes, "_loaded", lambda: None)
    elif passes._loaded() is None:
        pytest.skip("the native library is not built")


def drawn(kind: str, seed: int, size: int = VOCAB) -> np.ndarray:
    """Logits of a kind, and some that a rule forbids."""
    random = np.random.default_rng(seed)
    logits = np.resize(DISTRIBUTIONS[kind](random), size)
    logits[random.integers(0, size, 50)] = -np.inf
    return logits


@every_kind
@pytest.mark.parametrize("size", [16_384, 20_001, VOCAB])
def test_what_the_passes_find(kind: str, size: int) -> None:
    logits = drawn(kind, 1, size)
    groups = size // 128
    assert np.array_equal(group_maxima(logits, groups), logits[: size - size % groups].reshape(-1, groups).max(axis=0))
    for border in (logits.max(), np.median(logits), -1e30, -np.inf):
        assert np.array_equal(places_from(logits, border), np.flatnonzero(logits >= border))
    for factor in (0.01, 1.0, 30.0):
        weights = np.exp((logits.astype(np.float64) - logits.max()) * factor)
        sums = rough_sums(logits, float(logits.max()), factor)
        found, expected = np.cumsum(sums), np.cumsum(np.add.reduceat(weights, np.arange(0, size, BLOCK)))
        assert np.abs(found[: len(expected)] - expected).max() < ROUGH * expected[-1]
        assert found[-1] == found[len(expected) - 1]


@pytest.mark.parametrize("place", [0, 17, VOCAB - 1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found(place: int, wrong: float) -> None:
    logits = peaked(np.random.default_rng(1))
    require_finite(logits, "here")
    logits[place] = wrong
    with pytest.raises(NumericalError, match="here"):
        require_finite(logits, "here")


def test_a_number_of_any_row_is_found() -> None:
    rows = np.zeros((20_000, 4), np.float32)
    for part in (rows, rows[:, :3]):
        require_finite(part, "here")
    rows[19_999, 1] = np.nan
    for part in (rows, rows[:, :3]):
        with pytest.raises(NumericalError):
            require_finite(part, "here")


@every_kind
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_a_nucleus_is_that_of_float64(kind: str, temperature: float) -> None:
    for seed in range(4):
        logits = drawn(kind, seed)
        weights = Candidates(np.arange(VOCAB), logits, temperature).weights
        for share in (0.0, 0.5, 0.95, 0.999, 0.99999):
            found = nucleus(Candidates(np.arange(VOCAB), logits, temperature), share)
            assert np.array_equal(found, fewest(logits, weights, share * float(weights.sum()))[0])


@every_kind
def test_a_draw_from_all_is_that_of_float64(kind: str) -> None:
    logits = drawn(kind, 5)
    candidates = Candidates(np.arange(VOCAB), logits)
    weights = candidates.weights
    total, running = float(weights.sum()), np.cumsum(weights)
    borders = running[np.random.default_rng(2).integers(0, VOCAB, 10)] / total
    for uniform in (0.0, *np.random.default_rng(3).random(20), *(borders - 1e-9), *(borders + 1e-9), np.nextafter(1.0, 0.0)):
        looked = Candidates(np.arange(VOCAB), logits).at(float(uniform))
        assert looked == crossing(weights, float(uniform) * total, "right")


@every_kind
def test_candidates_by_likelihood_are_those_of_float64(kind: str) -> None:
    logits = drawn(kind, 6)
    weights = Candidates(np.arange(VOCAB), logits).weights
    for share in (1.0, 0.5, 1e-3, float(weights[77]) or 0.1, 1e-30):
        assert np.array_equal(Candidates(np.arange(VOCAB), logits).keep_likelier(share).ids, np.flatnonzero(weights >= share))
