"""The drawn tokens have the right distribution: chi-square tests against a distribution computed naively."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.engine.scripted import ScriptedExecutor, columns, only
from tests.sampling import naive
from tgen.options import GenerationOptions
from tgen.sampling.sampler import Sampler

# Two pairs of equals, both signs, and a few that are nearly out of the question.
LOGITS = [1.5, -0.5, 2.0, 2.0, -1.0, 0.0, 0.7, -3.0, 0.7, 1.0, -0.2, -6.0]
PROMPT = [2, 2, 4]
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
DRAWS = 4000


def draws(options: GenerationOptions, output: Sequence[int], keys: Sequence[tuple[int, int]]) -> np.ndarray:
    """One token for each (seed, row), drawn after an output that is forced upon the loop."""

    def script(read: tuple[int, ...]) -> Sequence[float] | np.ndarray:
        step = len(read) - len(PROMPT)
        return only(output[step], len(LOGITS)) if step < len(output) else LOGITS

    samplers = [Sampler(options, seed, row, PROMPT) for seed, row in keys]
    *forced, last = columns(ScriptedExecutor(script), PROMPT, samplers, len(output) + 1)
    assert [set(column) for column in forced] == [{token} for token in output]
    return np.array(last)


def assert_distributed(tokens: np.ndarray, expected: Sequence[float] | np.ndarray) -> None:
    from scipy.stats import chisquare  # takes a second

    observed, wanted = np.bincount(tokens.ravel(), minlength=len(expected)), np.array(expected) * tokens.size
    assert not observed[wanted == 0].any(), "nothing is drawn that was filtered out"
    common = wanted >= 5  # rarer tokens are counted together
    observed = np.append(observed[common], observed[~common].sum())
    wanted = np.append(wanted[common], wanted[~common].sum())
    assert chisquare(observed[wanted > 0], wanted[wanted > 0]).pvalue > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.8},
        {"top_k": 3},
        {"top_k": 7},
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"min_p": 0.3},
        {"temperature": 1.3, "top_k": 8, "top_p": 0.85, "min_p": 0.25},
    ],
    ids=str,
)
def test_filters(options: dict[str, Any]) -> None:
    settled = GenerationOptions(**{**OFF, **options})
    assert_distributed(draws(settled, [], [(7, row) for row in range(DRAWS)]), naive.distribution(LOGITS, settled, PROMPT, []))


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6},
        {"presence_penalty": 1.2},
        {"frequency_penalty": 0.7},
        {"frequency_penalty": -0.4},
        {
            "repetition_penalty": 1.3,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.3,
            "temperature": 1.4,
            "top_k": 9,
            "top_p": 0.9,
            "min_p": 0.15,
        },
    ],
    ids=str,
)
def test_penalties(options: dict[str, Any]) -> None:
    settled, output = GenerationOptions(**{**OFF, **options}), [3, 3, 1]
    tokens = draws(settled, output, [(8, row) for row in range(DRAWS // 2)])
    assert_distributed(tokens, naive.distribution(LOGITS, settled, PROMPT, output))


@pytest.mark.parametrize("varied", ["seed", "step"])
def test_every_axis_of_the_random_numbers(varied: str) -> None:
    """Rows are varied above; neighbouring seeds and the steps of one row are as independent."""
    options = GenerationOptions(**OFF)  # type: ignore[arg-type]
    if varied == "seed":
        tokens = draws(options, [], [(seed, 0) for seed in range(DRAWS)])
    else:
        sampler, logits = Sampler(options, 5, 0, PROMPT), np.array(LOGITS, dtype=np.float32)
        tokens = np.array([sampler.draw(logits) for _ in range(DRAWS)])
    assert_distributed(tokens, naive.distribution(LOGITS, options, PROMPT, []))


@pytest.mark.parametrize("apart", ["rows", "steps"])
def test_neighbours_are_independent(apart: str) -> None:
    """Pairs of draws from four equal tokens: all sixteen pairs are equally likely."""
    samplers = [Sampler(GenerationOptions(**OFF), 3, row, []) for row in range(DRAWS // 2)]  # type: ignore[arg-type]
    drawn = np.array(columns(ScriptedExecutor(lambda _: [0.0] * 4), [0], samplers, 2))
    pairs = drawn[0, :-1] * 4 + drawn[0, 1:] if apart == "rows" else drawn[0] * 4 + drawn[1]
    assert_distributed(pairs, [1 / 16] * 16)
