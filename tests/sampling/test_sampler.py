"""The sampler's arithmetic and its edge cases, against a naive reference and as the command line's contract states them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.scripted import Stage, only, speak
from tests.sampling import naive
from tgen.errors import UsageError
from tgen.options import GenerationOptions
from tgen.sampling import filters
from tgen.sampling.candidates import Candidates
from tgen.sampling.logits import NumericalError
from tgen.sampling.penalties import Penalties
from tgen.sampling.sampler import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200)
all_weights = st.lists(st.integers(1, 20), min_size=1, max_size=12)
shares = st.builds(Fraction, st.integers(0, 20), st.just(20))

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def weighted(weights: Sequence[float]) -> Candidates:
    """Candidates whose probabilities are in proportion to these weights; their ids leave gaps."""
    return Candidates(np.arange(len(weights)) * 3 + 5, np.log(np.array(weights, dtype=np.float64)))


def places(candidates: Candidates) -> set[int]:
    assert (np.diff(candidates.ids) > 0).all(), "ids stay in ascending order"
    return {(int(token) - 5) // 3 for token in candidates.ids}


def draw(logits: Sequence[float], *, prompt: Sequence[int] = (), seed: int = 1, row: int = 0, **options: Any) -> int:
    sampler = Sampler(GenerationOptions(**{**OFF, **options}), seed, row, prompt)
    return sampler.draw(np.array(logits, dtype=np.float32))


def drawn(logits: Sequence[float], **options: Any) -> set[int]:
    """The tokens that come up in many draws."""
    return {draw(logits, row=row, **options) for row in range(300)}


def logs(*weights: float) -> list[float]:
    return [math.log(weight) for weight in weights]


@steady
@given(all_weights, st.integers(0, 14))
def test_top_k(weights: list[int], k: int) -> None:
    assert places(filters.top_k(weighted(weights), k)) == naive.top_k(weights, k)


@steady
@given(all_weights, shares)
def test_top_p(weights: list[int], p: Fraction) -> None:
    kept = places(filters.top_p(weighted(weights), float(p)))
    assert kept == (naive.top_p(weights, p) if p < 1 else set(range(len(weights))))


@steady
@given(all_weights, shares)
def test_min_p(weights: list[int], p: Fraction) -> None:
    assert places(filters.min_p(weighted(weights), float(p))) == naive.min_p(weights, p)


@steady
@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=12), st.integers(0, 14), shares, shares)
def test_one_always_survives(logits: list[float], k: int, p: Fraction, least: Fraction) -> None:
    assert 0 <= draw(logits, top_k=k, top_p=float(p), min_p=float(least), temperature=0.01) < len(logits)


@steady
@given(all_weights, st.integers(0, 2**20 - 1))
def test_draw_is_the_inverse_of_the_cumulative_distribution(weights: list[int], number: int) -> None:
    uniform = Fraction(2 * number + 1, 2**21)  # never on a border between two tokens
    sums = [Fraction(sum(weights[: place + 1]), sum(weights)) for place in range(len(weights))]
    expected = next(place for place, reached in enumerate(sums) if uniform < reached)
    assert weighted(weights).at(float(uniform)) == expected * 3 + 5


def row(options: GenerationOptions, prompt: list[int], output: list[int]) -> Penalties:
    """The penalties of a row that has written the output."""
    found = Penalties(options, prompt)
    for token in output:
        found.take(token)
    return found


@steady
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=8, max_size=8),
    st.lists(st.integers(0, 7)),
    st.lists(st.integers(0, 7)),
    st.floats(0.1, 5),
    st.floats(-3, 3),
    st.floats(-3, 3),
)
def test_penalties(logits: list[float], prompt: list[int], output: list[int], repetition: float, presence: float, frequency: float) -> None:
    options = GenerationOptions(repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency)
    before = np.array(logits, dtype=np.float32)
    after = row(options, prompt, output).apply(before)
    for token, logit in enumerate(before.tolist()):
        if token in prompt + output:
            logit = logit * repetition if logit < 0 else logit / repetition
        if token in output:
            logit -= presence + frequency * output.count(token)
        assert after[token] == pytest.approx(logit, rel=1e-6, abs=1e-6)


@steady
@given(st.lists(st.integers(0, 199), max_size=100), st.lists(st.integers(0, 199), max_size=100))
def test_a_copy_counts_its_own_tokens(prompt: list[int], output: list[int]) -> None:
    """Beams copy their rows; arrays of ids grow as they fill."""
    options = GenerationOptions(repetition_penalty=1.7, presence_penalty=0.4, frequency_penalty=0.3)
    logits = np.random.default_rng(0).normal(0, 3, 200).astype(np.float32)
    first = row(options, prompt, output)
    second = first.copy()
    for token in range(70):
        first.take(token)
        second.take(token + 70)
    assert first.apply(logits).tolist() == row(options, prompt, [*output, *range(70)]).apply(logits).tolist()
    assert second.apply(logits).tolist() == row(options, prompt, [*output, *range(70, 140)]).apply(logits).tolist()


def test_penalties_leave_the_logits_as_they_are() -> None:
    """Log-probabilities are computed from the raw distribution."""
    logits = np.ones(3, dtype=np.float32)
    options = GenerationOptions(repetition_penalty=2, presence_penalty=1, temperature=0)
    Sampler(options, 0, 0, [0, 1, 2]).draw(logits)
    assert logits.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("logits", "prompt", "token"),
    [
        ([2.0, 1.1, 0.0], [0], 1),  # 2 / 2 is less than 1.1
        ([-1.0, -1.9, -9.0], [0], 1),  # -1 * 2 is less than -1.9
        ([2.0, 0.9, 0.0], [0, 0, 0], 0),  # once, not three times: 2 / 8 would be less than 0.9
        ([2.0, 1.1, 0.0], [2], 0),
    ],
)
def test_repetition_penalty(logits: list[float], prompt: list[int], token: int) -> None:
    assert draw(logits, prompt=prompt, temperature=0, repetition_penalty=2) == token


def test_repetition_penalty_covers_the_output_once() -> None:
    sampler = Sampler(GenerationOptions(temperature=0, repetition_penalty=2), 0, 0, [])
    logits = np.array([8, 5, 1], dtype=np.float32)
    assert [sampler.draw(logits) for _ in range(4)] == [0, 1, 0, 0]


def test_frequency_penalty_counts_the_output_and_presence_does_not() -> None:
    def tokens(**options: float) -> list[int]:
        sampler = Sampler(GenerationOptions(temperature=0, **options), 0, 0, [0, 0, 0])  # type: ignore[arg-type]
        return [sampler.draw(np.array([5, 3.5, 0], dtype=np.float32)) for _ in range(5)]

    assert tokens(frequency_penalty=1) == [0, 0, 1, 0, 1]
    assert tokens(presence_penalty=1) == [0, 0, 0, 0, 0]
    assert tokens(presence_penalty=2) == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("filters", [{}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"top_k": 2, "top_p": 0.5, "min_p": 0.5}])
def test_temperature_zero_is_the_lowest_id_of_the_likeliest(filters: dict[str, Any]) -> None:
    logits = [0.0, 3.0, 1.0, 3.0, 3.0]
    assert {draw(logits, seed=seed, temperature=0, **filters) for seed in range(20)} == {1}


@pytest.mark.parametrize(("k", "kept"), [(0, {0, 1, 2, 3}), (1, {1}), (2, {1, 2}), (3, {0, 1, 2}), (4, {0, 1, 2, 3}), (9, {0, 1, 2, 3})])
def test_top_k_keeps_exactly_k(k: int, kept: set[int]) -> None:
    assert drawn([1.0, 2.0, 2.0, 1.0], top_k=k) == kept


@pytest.mark.parametrize(
    ("weights", "p", "kept"),
    [
        ([0.5, 0.25, 0.25], 0.5, 1),
        ([0.5, 0.25, 0.25], 0.51, 2),
        ([0.5, 0.25, 0.25], 0.76, 3),
        ([0.5, 0.25, 0.25], 1.0, 3),
        ([0.5, 0.25, 0.25], 0.0, 1),
        ([1.0] * 4, 0.0, 1),
        ([0.1] * 10, 0.8, 8),
        ([0.1] * 10, 0.81, 9),
    ],
)
def test_top_p_includes_the_crossing_token(weights: list[float], p: float, kept: int) -> None:
    assert drawn(logs(*weights), top_p=p) == set(range(kept))


def test_top_p_takes_the_likeliest_not_the_first() -> None:
    assert drawn(logs(0.1, 0.2, 0.7), top_p=0.8) == {1, 2}


@pytest.mark.parametrize(("p", "kept"), [(0.0, {0, 1, 2, 3}), (0.25, {1, 2, 3}), (0.5, {1, 2}), (0.51, {1}), (1.0, {1})])
def test_min_p_is_a_share_of_the_likeliest(p: float, kept: set[int]) -> None:
    assert drawn(logs(0.125, 1, 0.5, 0.25), min_p=p) == kept


def test_order_is_temperature_top_k_top_p_min_p() -> None:
    weights = logs(4, 3, 2, 1)
    # 7 of 9 is less than 0.85, but at temperature 1/2 the weights are 16, 9, 4, 1, and 16 + 9 of 29 are more: 25 of 30 would be less.
    assert drawn(weights, top_k=3, top_p=0.85) == {0, 1, 2}
    assert drawn(weights, top_k=3, top_p=0.85, temperature=0.5) == {0, 1}
    # 7 of 10 is less than 0.75; 7 of 9, after min-p, would be more.
    assert drawn(weights, top_p=0.75, min_p=0.4) == {0, 1, 2}


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": -0.01},
        {"top_p": 1.01},
        {"min_p": -0.01},
        {"min_p": 1.01},
        {"repetition_penalty": 0},
        {"repetition_penalty": -1},
    ],
)
def test_a_bad_value_is_a_usage_error(options: dict[str, Any]) -> None:
    stage = Stage(speak("x"))
    with pytest.raises(UsageError, match=f"--{next(iter(options)).replace('_', '-')}") as caught:
        stage.play(**options)
    assert caught.value.exit_code == 2
    assert not stage.sessions


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_name_the_step(bad: float, temperature: float) -> None:
    def script(read: tuple[int, ...]) -> np.ndarray:
        logits = only(ord("x"))
        logits[9] = bad if len(read) == 3 else 0
        return logits

    with pytest.raises(NumericalError, match=r"not finite at step 2$") as caught:
        Stage(script).play("P", temperature=temperature)
    assert caught.value.hint is not None
    assert "--dtype float32" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-300, "repetition_penalty": 1e308, "presence_penalty": 1e308, "frequency_penalty": 1e308},
        {"temperature": 1e308},
        {"repetition_penalty": 5e-324, "frequency_penalty": -1e308},
        {"repetition_penalty": 1e308, "presence_penalty": -1e308, "frequency_penalty": 1e308, "top_p": 0.5, "min_p": 0.5},
    ],
)
def test_extreme_values_still_draw(options: dict[str, float]) -> None:
    """The largest numbers draw without a warning, and a tiny temperature draws the highest token."""
    sampler = Sampler(GenerationOptions(**{**OFF, **options}), 0, 0, [0, 1])  # type: ignore[arg-type]
    tokens = [sampler.draw(np.array([-3e38, 1, 3e38, 5], dtype=np.float32)) for _ in range(20)]
    assert all(0 <= token < 4 for token in tokens)
    if options == {"temperature": 5e-324}:
        assert set(tokens) == {2}


def test_noise_in_the_last_bits_changes_hardly_a_draw() -> None:
    """Other devices round differently; a draw changes only at a border between tokens, which nearly equal tokens do not make likelier."""
    random = np.random.default_rng(0)
    logits = np.repeat(random.normal(0, 2, 25), 2)
    noisy = logits + random.normal(0, 1e-6, 50)
    changed = sum(draw(logits.tolist(), row=row, top_p=0.97) != draw(noisy.tolist(), row=row, top_p=0.97) for row in range(1500))
    assert changed <= 1
