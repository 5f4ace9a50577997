"""Measures how much a batch gains: runs the same requests one after another, and all at once."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from tgen.engine.generator import Generator
from tgen.engine.request import Request


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second of `rows` requests, each a prompt and a continuation: two medians, and the median of each turn's ratio."""

    rows: int
    one_after_another: float
    at_once: float
    gain: float


def throughput(generator: Generator, rows: int, context: int, new_tokens: int, repeats: int) -> Throughput:
    """Continue random prompts of `context` ids. The two ways take turns, so that changes of the machine's speed affect both."""
    turns: list[tuple[float, float]] = []
    for turn in range(repeats + 1):
        pair = speed(generator, rows, 1, context, new_tokens), speed(generator, rows, rows, context, new_tokens)
        if turn:  # the first turn warms up
            turns.append(pair)
    alone, together = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
    return Throughput(rows, alone, together, statistics.median(many / one for one, many in turns))


def speed(generator: Generator, rows: int, size: int, context: int, new_tokens: int) -> float:
    """New tokens per second with `size` rows at once; the time includes prefill."""
    resolved = generator.resolve({"max_new_tokens": new_tokens, "ignore_eos": True, "seed": 1, "num_beams": 1})
    random = np.random.default_rng(context)
    waiting = [Request(key, random.integers(0, generator.limits.vocab, context).tolist(), resolved) for key in range(rows)]
    started = time.perf_counter()
    for _ in generator.run_many(lambda _: waiting.pop() if waiting else None, size):
        pass
    return rows * new_tokens / (time.perf_counter() - started)
