"""Top-n-sigma, typical-p, XTC, Mirostat 2 and --samplers: chi-square tests against the formulas of the papers, written out slowly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.sampling import DISTRIBUTIONS, VOCAB
from tests.sampling.naive import drawn, softmax
from tests.sampling.test_distribution import DRAWS, LOGITS, OFF, PROMPT, assert_distributed, draws
from tests.sampling.test_sampler import places, steady, weighted
from tgen.errors import UsageError
from tgen.options import GenerationOptions, resolve
from tgen.sampling import filters
from tgen.sampling import mirostat as mirostat_module
from tgen.sampling.logits import FEW
from tgen.sampling.sampler import Sampler, Trace

Chances = dict[int, float]


def renormalised(chances: Chances, kept: Sequence[int]) -> Chances:
    total = math.fsum(chances[token] for token in kept)
    return {token: chances[token] / total for token in kept}


def top_n_sigma(chances: Chances, n: float) -> Chances:
    """Equation 4 of arXiv:2411.07641; logits and log-probabilities differ by a constant, which changes neither side."""
    logits = [math.log(chance) for chance in chances.values()]
    mean = math.fsum(logits) / len(logits)
    sigma = math.sqrt(math.fsum((logit - mean) ** 2 for logit in logits) / len(logits))
    return renormalised(chances, [token for token, chance in chances.items() if math.log(chance) >= max(logits) - n * sigma])


def typical_p(chances: Chances, p: float) -> Chances:
    """Section 3 of arXiv:2202.00666: by distance of the surprise from the entropy, up to and with the token that reaches p."""
    entropy = -math.fsum(chance * math.log(chance) for chance in chances.values())
    order = sorted(chances, key=lambda token: (round(abs(-math.log(chances[token]) - entropy), 9), token))
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += chances[token]
        if total >= p:
            break
    return renormalised(chances, kept)


def xtc(chances: Chances, threshold: float) -> Chances:
    """All that reach the threshold go but the last of them in a stable sort, if there are two or more."""
    top = sorted((token for token in chances if chances[token] >= threshold), key=lambda token: (-chances[token], token))
    return renormalised(chances, [token for token in chances if token not in top[:-1]])


def at(temperature: float) -> Chances:
    return dict(enumerate(softmax([logit / temperature for logit in LOGITS])))


def spread(chances: Chances) -> list[float]:
    return [chances.get(token, 0.0) for token in range(len(LOGITS))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_n_sigma": 0.5}, lambda: top_n_sigma(at(1), 0.5)),
        ({"top_n_sigma": 1.0, "temperature": 2}, lambda: top_n_sigma(at(2), 1.0)),
        ({"typical_p": 0.4}, lambda: typical_p(at(1), 0.4)),
        ({"typical_p": 0.8, "temperature": 0.5}, lambda: typical_p(at(0.5), 0.8)),
        ({"xtc_probability": 1, "xtc_threshold": 0.15}, lambda: xtc(at(1), 0.15)),
        ({"xtc_probability": 1, "xtc_threshold": 0.3}, lambda: at(1)),
        ({"top_n_sigma": 1.5, "typical_p": 0.9, "xtc_probability": 1}, lambda: xtc(typical_p(top_n_sigma(at(1), 1.5), 0.9), 0.1)),
        (
            {"samplers": "xtc,typ_p;temperature", "temperature": 1.7, "xtc_probability": 1, "typical_p": 0.7, "top_k": 1},
            lambda: {
                token: share
                for kept in [typical_p(xtc(at(1), 0.1), 0.7)]
                for token, share in zip(kept, softmax([LOGITS[token] / 1.7 for token in kept]), strict=True)
            },
        ),
        ({"samplers": "top-k", "temperature": 5, "top_k": 3}, lambda: renormalised(at(1), [2, 3, 0])),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "wanted",
)
def test_filters(options: dict[str, Any], expected: Callable[[], Chances]) -> None:
    settled = resolve({**OFF, **options}, {}, {}).options
    assert_distributed(draws(settled, [], [(9, row) for row in range(DRAWS // 2)]), spread(expected()))


@pytest.mark.parametrize("samplers", [("xtc",), ("temperature", "xtc")])
def test_xtc_runs_as_often_as_asked(samplers: tuple[str, ...]) -> None:
    """Its coin is a number of its own: whether the filter runs does not depend on which token the step's number draws."""
    settled = GenerationOptions(**{**OFF, "xtc_probability": 0.4, "samplers": samplers})  # type: ignore[arg-type]
    mixed = [0.4 * on + 0.6 * off for on, off in zip(spread(xtc(at(1), 0.1)), spread(at(1)), strict=True)]
    assert_distributed(draws(settled, [], [(4, row) for row in range(DRAWS // 2)]), mixed)


def test_a_coin_takes_no_number_of_the_draws() -> None:
    """The steps in which XTC does not run draw what they draw without it."""
    logits = np.array(LOGITS, dtype=np.float32)
    plain, rare = (Sampler(GenerationOptions(**OFF, xtc_probability=p), 3, 0, PROMPT) for p in (0, 0.01))  # type: ignore[arg-type]
    assert [plain.draw(logits) for _ in range(40)] == [rare.draw(logits) for _ in range(40)]


@steady
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(0, 20), st.integers(1, 30))
def test_each_filter_keeps_what_the_formula_keeps(weights: list[int], twentieths: int, tenths: int) -> None:
    chances = {place: weight / sum(weights) for place, weight in enumerate(weights)}
    found = weighted(weights)
    assert places(filters.top_n_sigma(found, tenths / 10 + 1e-9)) == set(top_n_sigma(chances, tenths / 10 + 1e-9))
    share = twentieths / 20 - 0.01  # no sum of these weights is at this border
    assert places(filters.typical_p(found, max(share, 0))) == set(typical_p(chances, max(share, 0)))
    assert places(filters.xtc(found, abs(share))) == set(xtc(chances, abs(share)))


def test_typical_p_may_cut_the_likeliest() -> None:
    assert 0 not in places(filters.typical_p(weighted([14, *[1] * 86]), 0.5))


@pytest.mark.parametrize("options", [{"top_n_sigma": 1e-300}, {"typical_p": 0.0}, {"xtc_probability": 1, "xtc_threshold": 0}])
def test_extremes_leave_one(options: dict[str, Any]) -> None:
    for logits in ([-3e38, 1, 3e38, 5], [0.0] * 4, [1.0]):
        sampler = Sampler(GenerationOptions(**{**OFF, **options}), 0, 0, [0])
        assert 0 <= sampler.draw(np.array(logits, dtype=np.float32)) < len(logits)


def test_masked_tokens_do_not_count() -> None:
    """A rule's -inf is no logit: neither the deviation nor the entropy knows it."""
    masked = weighted([1, 2, 4, 8])
    masked.logits[[0, 2]] = -np.inf
    assert places(filters.top_n_sigma(masked, 0.5)) == {3}
    assert places(filters.top_n_sigma(masked, 2.1)) == {1, 3}
    assert places(filters.typical_p(masked, 0.99)) == {1, 3}


def mirostat(tau: float, eta: float, uniforms: Sequence[float], logits: Sequence[float]) -> list[int]:
    """Algorithm 2 of arXiv:2007.14966, with the same random numbers."""
    limit, tokens = 2 * tau, []
    chances = dict(enumerate(softmax(logits)))
    for uniform in uniforms:
        kept = [token for token in chances if -math.log2(chances[token]) <= limit] or [max(chances, key=lambda token: chances[token])]
        token = drawn(list(renormalised(chances, kept).items()), uniform)
        limit -= eta * (-math.log2(chances[token]) - tau)
        tokens.append(token)
    return tokens


@pytest.mark.parametrize(("tau", "eta"), [(1.5, 0.1), (2.5, 0.3), (0.2, 1.0), (5.0, 0.1)])
def test_mirostat_is_the_papers_algorithm(tau: float, eta: float) -> None:
    traces: list[Trace] = []
    sampler = Sampler(GenerationOptions(temperature=1, mirostat_tau=tau, mirostat_eta=eta), 1, 0, [], watch=traces.append)
    logits = [*LOGITS[:3], *LOGITS[4:]]
    tokens = [sampler.draw(np.array(logits, dtype=np.float32)) for _ in range(300)]
    assert tokens == mirostat(tau, eta, [trace.uniform or 0 for trace in traces], logits)
    assert {name for trace in traces for name, _ in trace.stages} == {"temperature", "mirostat"}


@pytest.mark.parametrize(("kind", "tau"), [("peaked", 2.5), ("flat: deviation 1", 15.0), ("flat: three levels", 16.0)])
def test_mirostat_of_a_large_vocabulary_is_that_of_float64(kind: str, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, texts = DISTRIBUTIONS[kind](np.random.default_rng(0)), []
    for few in (FEW, VOCAB + 1):
        monkeypatch.setattr(mirostat_module, "FEW", few)
        sampler = Sampler(GenerationOptions(temperature=0.8, mirostat_tau=tau, mirostat_eta=0.3), 1, 0, [])
        texts.append([sampler.draw(logits) for _ in range(60)])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


@pytest.mark.parametrize("samplers", [("temperature",), ("top_k",)])
def test_mirostat_holds_the_surprise_near_its_target(samplers: tuple[str, ...]) -> None:
    settled = GenerationOptions(temperature=1, samplers=samplers, top_k=1, mirostat_tau=2.0)
    sampler, logits = Sampler(settled, 2, 0, []), np.random.default_rng(0).normal(0, 2.5, 500).astype(np.float32)
    surprise = [-math.log2(softmax(logits.tolist())[sampler.draw(logits)]) for _ in range(400)]
    assert np.mean(surprise[100:]) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("top_k,heat", "--samplers has no filter named 'heat'"),
        ("", "--samplers has no filter named ''"),
        ([], "--samplers has no filter named ''"),
        ("top_k,top-k", "--samplers names a filter twice"),
        ([1], "--samplers must be a list of names, not [1]"),
    ],
)
def test_a_wrong_list_of_filters_is_named(value: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"samplers": value}, {}, {})
    assert caught.value.message == message
    assert caught.value.hint


def test_what_changes_nothing_is_known() -> None:
    unused = resolve({"samplers": "temperature,top_k", "xtc_threshold": 0.3}, {}, {}).unused()
    assert {"top_p", "min_p", "typical_p", "xtc_probability", "xtc_threshold", "dry_base", "mirostat_eta"} <= unused
    assert not {"top_k", "temperature", "samplers", "dry_multiplier", "mirostat_tau"} & unused
    steered = resolve({"mirostat_tau": 5}, {}, {}).unused()
    assert {"top_k", "top_p"} <= steered and not {"temperature", "mirostat_eta"} & steered
    assert "xtc_threshold" not in resolve({"xtc_probability": 0.5}, {}, {}).unused()
