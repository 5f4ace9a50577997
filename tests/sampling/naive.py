"""Sampling the slow and obvious way: everything is sorted, nothing is clever. The reference for the sampler's tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np

from tgen.options import GenerationOptions

ALMOST = 1e-9

# The sampler accepts sums that miss top-p by this share, and min-p likewise, because logits are no more exact than this.
ROUNDING = 1e-6


def distribution(logits: Sequence[float], options: GenerationOptions, prompt: Sequence[int], output: Sequence[int]) -> list[float]:
    """The probability of every token to be drawn next."""
    found = dict(kept(penalised(logits, options, prompt, output), options))
    return [found.get(token, 0.0) for token in range(len(logits))]


def penalised(logits: Sequence[float], options: GenerationOptions, prompt: Sequence[int], output: Sequence[int]) -> list[float]:
    """Scores, rounded to float32 after each kind of penalty."""
    scores = [float(logit) for logit in logits]
    for token in {*prompt, *output}:
        penalty = options.repetition_penalty
        scores[token] = float(np.float32(scores[token] * penalty if scores[token] < 0 else scores[token] / penalty))
    for token, times in Counter(output).items():
        scores[token] = float(np.float32(scores[token] - (options.presence_penalty + options.frequency_penalty * times)))
    return scores


def kept(scores: Sequence[float], options: GenerationOptions, rounding: float = ALMOST) -> list[tuple[int, float]]:
    """The tokens that the filters leave, highest first, and their probabilities."""
    values = np.array(scores, dtype=np.float64)
    tokens = np.argsort(-values, kind="stable")
    with np.errstate(over="ignore"):
        scaled = (values - values.max()) / options.temperature
    tokens = tokens[: options.top_k or len(tokens)]
    if options.top_p < 1:
        reached = np.cumsum(softmax(scaled[tokens])) >= options.top_p - rounding
        tokens = tokens[: int(np.argmax(reached)) + 1 if reached.any() else len(tokens)]
    chances = softmax(scaled[tokens])
    tokens = tokens[chances >= options.min_p * chances[0] * (1 - rounding)]
    return list(zip(tokens.tolist(), softmax(scaled[tokens]).tolist(), strict=True))


def drawn(chances: Sequence[tuple[int, float]], uniform: float) -> int:
    """The token at a place in the unit interval, on which tokens stand in the order of their ids."""
    tokens = sorted(chances)
    return next(token for (token, _), total in zip(tokens, accumulate(chance for _, chance in tokens), strict=True) if total > uniform)


def softmax(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(np.asarray(scores, dtype=np.float64) - max(scores))
    return weights / math.fsum(weights)


def top_k(weights: Sequence[int], k: int) -> set[int]:
    """The places of the k largest, lower places first among equals."""
    order = sorted(range(len(weights)), key=lambda place: (-weights[place], place))
    return set(order[: k or len(order)])


def top_p(weights: Sequence[int], p: Fraction) -> set[int]:
    """The places of the smallest set of largest weights whose share reaches p; at least one."""
    order = sorted(range(len(weights)), key=lambda place: (-weights[place], place))
    kept: list[int] = []
    for place in order:
        if kept and Fraction(sum(weights[one] for one in kept), sum(weights)) >= p:
            break
        kept.append(place)
    return set(kept)


def min_p(weights: Sequence[int], p: Fraction) -> set[int]:
    """The places of weights that are at least p times the largest."""
    return {place for place, weight in enumerate(weights) if weight >= p * max(weights)}
