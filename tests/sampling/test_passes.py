"""The passes over a whole vocabulary find the same in the native library and in NumPy, and a first look never changes a result."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.sampling import DISTRIBUTIONS, OFF, VOCAB, peaked
from tests.sweeps import sweep
from tgen.options import GenerationOptions
from tgen.sampling import logits as passes
from tgen.sampling.candidates import EXACT, ROUGH, Candidates
from tgen.sampling.filters import filtered
from tgen.sampling.logits import BLOCK, NumericalError, exact_sums, group_maxima, keep_some, places_from, require_finite, rough_sums
from tgen.sampling.nucleus import nucleus, typical
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
        places = np.flatnonzero(logits >= border)
        assert np.array_equal(places_from(logits, border), places)
        assert np.array_equal(places_from(logits, border, 50)[:50], places[:50])
        assert len(places_from(logits, border, 50)) > 50 or len(places) <= 50
        assert np.array_equal(keep_some(logits, logits >= border), np.where(logits >= border, logits, -np.inf))
    for factor in (0.01, 1.0, 30.0):
        weights = np.exp((logits.astype(np.float64) - logits.max()) * factor)
        sums = rough_sums(logits, float(logits.max()), factor)
        found, expected = np.cumsum(sums), np.cumsum(np.add.reduceat(weights, np.arange(0, size, BLOCK)))
        assert np.abs(found[: len(expected)] - expected).max() < ROUGH * expected[-1]
        assert found[-1] == found[len(expected) - 1]


@every_kind
@pytest.mark.parametrize("size", [16_384, 20_001, VOCAB])
@pytest.mark.parametrize("factor", [0.01, 1.0, 30.0])
def test_exact_sums(kind: str, size: int, factor: float) -> None:
    logits = drawn(kind, 1, size)
    top, (low, middle, high) = float(logits.max()), np.quantile(logits[logits > -np.inf], (0.2, 0.5, 0.7))
    weights = np.exp((logits.astype(np.float64) - top) * factor)
    for inner, outer in (((middle, high), (low, top)), ((middle, np.inf), (low, np.inf)), ((np.inf, np.inf), (low, high))):
        sums = exact_sums(logits, top, factor, inner, outer)
        if sums is None:
            assert passes._loaded() is None
            return
        inside, around = ((logits >= ends[0]) & (logits <= ends[1]) for ends in (inner, outer))
        assert sums.inside == np.count_nonzero(inside)
        assert np.array_equal(sums.kept, np.where(inside, logits, -np.inf))
        assert np.array_equal(sums.places, np.flatnonzero(around & ~inside))
        expected = np.add.reduceat(weights * inside, np.arange(0, size, BLOCK))
        assert np.abs(np.cumsum(sums.blocks) - np.cumsum(expected)).max() <= EXACT * expected.sum()


@pytest.mark.parametrize("place", [0, 17, VOCAB - 1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found(place: int, wrong: float) -> None:
    logits = peaked(np.random.default_rng(1))
    assert require_finite(logits, "here") == logits.max()
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
@pytest.mark.parametrize("temperature", sweep([0.3, 1.0, 3.0], (1.0).__eq__))
def test_a_nucleus_is_that_of_float64(kind: str, temperature: float) -> None:
    for seed in range(4):
        logits = drawn(kind, seed)
        weights = Candidates(np.arange(VOCAB), logits, temperature).weights
        for share in (0.0, 0.5, 0.95, 0.999, 0.99999):
            found = nucleus(Candidates(np.arange(VOCAB), logits, temperature), share).ids
            assert np.array_equal(found, fewest(logits, weights, share * float(weights.sum()))[0])


@every_kind
@pytest.mark.parametrize("temperature", sweep([0.3, 1.0, 3.0], (1.0).__eq__))
def test_typical_candidates_are_those_of_float64(kind: str, temperature: float) -> None:
    for seed in range(4):
        known, looked = (Candidates(np.arange(VOCAB), drawn(kind, seed), temperature) for _ in range(2))
        assert len(known.weights) == VOCAB, "with these, the whole vocabulary is compared"
        for share in (0.0, 0.2, 0.95, 0.999):
            assert np.array_equal(typical(looked, share).ids, typical(known, share).ids)


@pytest.mark.parametrize("kind", ["peaked", "wide: no peak, deviation 3", "flat: deviation 1"])
def test_the_library_compares_few(kind: str) -> None:
    """Without it, a step compares all weights; so it should find what it is asked for, and not leave the step to this long way."""
    for seed in range(4):
        candidates = Candidates(np.arange(VOCAB), drawn(kind, seed))
        for share in (0.2, 0.5, 0.95):
            for nearest in (False, True):
                assert (candidates.fewest(share, typical=nearest) is None) == (passes._loaded() is None)


@every_kind
@pytest.mark.parametrize(
    "options",
    [
        {"top_p": 0.9},
        {"top_p": 0.9, "min_p": 0.1},
        {"top_p": 0.6, "min_p": 0.9},
        {"top_p": 0.9, "min_p": 0.001},
        {"typical_p": 0.9},
        {"typical_p": 0.2},
        {"typical_p": 0.9, "min_p": 0.3, "samplers": ("typical_p", "min_p")},
        {"min_p": 1e-4},
        {"top_n_sigma": 3.0, "top_p": 0.5},
        {"top_k": 30_000, "typical_p": 0.7},
        {"xtc_threshold": 0.05, "top_p": 0.9, "xtc_probability": 1.0},
        {"xtc_threshold": 0.05, "xtc_probability": 1.0, "samplers": ("xtc", "top_p", "min_p"), "top_p": 0.99, "min_p": 0.2},
    ],
    ids=str,
)
def test_filters_and_draws_are_those_of_float64(kind: str, options: dict[str, object]) -> None:
    """Whoever knows all weights compares them all. Stages that nobody watches may be left out, and change nothing."""
    settled = GenerationOptions(**{**OFF, **options})
    logits = DISTRIBUTIONS[kind](np.random.default_rng(3)) if "samplers" in options else drawn(kind, 3)
    known = Candidates(np.arange(VOCAB), logits)
    assert len(known.weights) == VOCAB
    expected = filtered(known, settled, excluding=True, every=True)
    watched = filtered(Candidates(np.arange(VOCAB), logits), settled, excluding=True, every=True)
    assert [name for name, _ in watched] == [name for name, _ in expected]
    for (_, found), (_, wanted) in zip(watched, expected, strict=True):
        assert np.array_equal(found.ids, wanted.ids)
        assert np.array_equal(found.logits, wanted.logits)
    alone = filtered(Candidates(np.arange(VOCAB), logits), settled, excluding=True)[-1][1]
    weights, ids = expected[-1][1].probabilities(), expected[-1][1].ids
    # At 0, all weights are computed, and used from then on.
    for uniform in (*np.random.default_rng(4).random(10), 0.0, np.nextafter(1.0, 0.0)):
        token = ids[crossing(weights, float(uniform), "right")]
        assert alone.at(float(uniform)) == watched[-1][1].at(float(uniform)) == token
    assert np.array_equal(alone.ids, ids)


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
