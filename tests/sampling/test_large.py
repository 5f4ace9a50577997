"""At a vocabulary of 152,064 the sampler keeps and draws exactly the tokens of a naive one that sorts everything."""

from __future__ import annotations

from itertools import accumulate, product
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.sampling import DISTRIBUTIONS, VOCAB, peaked
from tests.sampling import naive
from tests.sweeps import sweep
from tgen.options import GenerationOptions
from tgen.sampling.candidates import Candidates
from tgen.sampling.filters import top_p
from tgen.sampling.rules import Rules
from tgen.sampling.sampler import Sampler, Trace

OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
PROMPT = [5, 5, 7, 150_000]


CHOICES: list[dict[str, Any]] = [
    {"temperature": 0.9, "top_k": 40, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.05},
    {"temperature": 0.9, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.05},
    {"temperature": 1.7, "top_p": 0.98},
    {"top_k": 2000, "min_p": 0.5},
    {},
]


@pytest.mark.parametrize(
    ("kind", "options"), sweep(product(DISTRIBUTIONS, CHOICES), lambda one: one[0] == "peaked" or one[1] == CHOICES[1]), ids=str
)
def test_the_same_as_a_naive_sampler(kind: str, options: dict[str, Any]) -> None:
    settled = GenerationOptions(**{**OFF, **options})
    logits = DISTRIBUTIONS[kind](np.random.default_rng(3))
    traces: list[Trace] = []
    token = Sampler(settled, 11, 0, PROMPT, watch=traces.append).draw(logits)
    expected = naive.kept(naive.penalised(logits.tolist(), settled, PROMPT, []), settled, naive.ROUNDING)
    (trace,) = traces
    assert trace.uniform is not None
    assert trace.stages[-1][1].ids.tolist() == sorted(token for token, _ in expected)
    assert token == naive.drawn(expected, trace.uniform)


@pytest.mark.parametrize("kind", ["peaked", "flat: deviation 1"])
@pytest.mark.parametrize("vocab", [4096, VOCAB])
def test_what_the_rules_forbid_is_not_drawn(kind: str, vocab: int) -> None:
    settled = GenerationOptions(**{**OFF, "top_p": 0.9})
    logits = DISTRIBUTIONS[kind](np.random.default_rng(5))[:vocab]
    suppressed = tuple(int(token) for token in np.argsort(-logits)[: vocab // 2 : 2])
    scores = logits.copy()
    scores[list(suppressed)] = -np.inf
    traces: list[Trace] = []
    token = Sampler(settled, 11, 0, PROMPT[:2], Rules(9, suppressed=suppressed), traces.append).draw(logits)
    expected = naive.kept(scores.tolist(), settled, naive.ROUNDING)
    assert traces[0].uniform is not None
    assert traces[0].stages[-1][1].ids.tolist() == sorted(token for token, _ in expected)
    assert token == naive.drawn(expected, traces[0].uniform)


def test_top_p_is_right_beside_each_border() -> None:
    """Float32 cannot tell on which side of these borders p is."""
    logits = peaked(np.random.default_rng(4))
    tokens = sorted(range(VOCAB), key=lambda token: (-logits[token], token))
    sums = list(accumulate(naive.softmax([float(logits[token]) for token in tokens])))
    for place in range(40):
        for beyond in (-1e-9, 1e-9):
            kept = top_p(Candidates(np.arange(VOCAB), logits), sums[place] + naive.ROUNDING + beyond)
            assert kept.ids.tolist() == sorted(tokens[: place + 1 + (beyond > 0)])


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-38, 1e-20, 1e20, 1e308])
@pytest.mark.parametrize("high", [3e38, 1e-30])
def test_extreme_temperatures(temperature: float, high: float) -> None:
    """Without a warning: a cold one leaves only the highest token, a hot one makes all equally likely."""
    logits = np.full(VOCAB, -high, dtype=np.float32)
    logits[77] = high
    logits[99] = np.nextafter(np.float32(high), np.float32(0))
    kept = top_p(Candidates(np.arange(VOCAB), logits, temperature), 0.9).ids
    if high > temperature:
        assert kept.tolist() == [77]
    else:
        assert len(kept) == np.ceil((0.9 - naive.ROUNDING) * VOCAB)
