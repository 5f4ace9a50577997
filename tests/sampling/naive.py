"""Sampling the slow and obvious way: everything is sorted, nothing is clever. The reference for the sampler's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from tgen.options import GenerationOptions

ALMOST = 1e-9


def distribution(logits: Sequence[float], options: GenerationOptions, prompt: Sequence[int], output: Sequence[int]) -> list[float]:
    """The probability of every token to be drawn next."""
    scores = [float(logit) for logit in logits]
    for token in {*prompt, *output}:
        penalty = options.repetition_penalty
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    for token in {*output}:
        scores[token] -= options.presence_penalty + options.frequency_penalty * list(output).count(token)
    scores = [score / options.temperature for score in scores]
    kept = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    kept = kept[: options.top_k or len(kept)]
    if options.top_p < 1:
        chances = softmax([scores[token] for token in kept])
        kept = kept[: next((n for n in range(1, len(kept)) if sum(chances[:n]) >= options.top_p - ALMOST), len(kept))]
    chances = softmax([scores[token] for token in kept])
    kept = [token for token, chance in zip(kept, chances, strict=True) if chance >= options.min_p * chances[0] - ALMOST]
    chances = softmax([scores[token] for token in kept])
    return [chances[kept.index(token)] if token in kept else 0.0 for token in range(len(scores))]


def softmax(scores: Sequence[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


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
