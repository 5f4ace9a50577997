"""Measures how fast a model reads and generates, and the machine's memory bandwidth, which limits decode."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tgen.executors.torch.session import TorchSession
from tgen.executors.torch.transformer import Transformer
from tgen.spec.cache import row_numbers

READ_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians over several runs at one length of context: speeds in tokens per second, times in seconds, memory in bytes.

    `bytes_per_second` is how fast decode reads weights and cache.
    """

    context: int
    prefill_speed: float
    first_token_seconds: float
    decode_speed: float
    bytes_per_second: float
    peak_memory: int


def measure(model: Transformer, contexts: list[int], new_tokens: int, repeats: int) -> Iterator[Measurement]:
    """A measurement for each length of context. The lengths take turns, so that a machine whose speed drifts treats them alike."""
    runs: dict[int, list[tuple[float, float]]] = {context: [] for context in contexts}
    for turn in range(repeats + 1):
        for context in contexts:
            run = _run(model, context, new_tokens)
            if turn:  # the first turn warms up
                runs[context].append(run)
    for context in contexts:
        prefill = statistics.median(run[0] for run in runs[context])
        step = statistics.median(run[1] for run in runs[context])
        read = bytes_per_step(model, context + new_tokens // 2)
        yield Measurement(context, context / prefill, prefill, 1 / step, read / step, peak_memory())


def read_bandwidth() -> float:
    """Bytes per second that all threads together read from memory: the ceiling of decode, which reads every weight for every token."""
    block = torch.ones(READ_BYTES // 4)
    return READ_BYTES / min(_seconds(block.sum) for _ in range(5))


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(model: Transformer, context: int, new_tokens: int) -> tuple[float, float]:
    """Seconds of prefill, and the median seconds of a decode step after it."""
    ids = np.random.default_rng(context).integers(0, model.spec.vocab, context + new_tokens).tolist()
    session = TorchSession(model)
    session.admit([None])
    prefill = _seconds(lambda: session.extend([ids[:context]]))
    steps = [_seconds(lambda token=token: session.extend([[token]])) for token in ids[context:]]  # type: ignore[misc]
    return prefill, statistics.median(steps)


def bytes_per_step(model: Transformer, length: int) -> int:
    """Bytes that a decode step reads after `length` tokens: all weights, but one row of each lookup table, and the whole cache."""
    decoder = model.spec.decoder
    cache = row_numbers(model.spec, length) * model.dtype.itemsize
    # A tied head multiplies by the whole embedding, unless either was swapped for a matrix of its own.
    table = getattr(model.embedding, "weight", None)
    tied = table is not None and model.head is not None and getattr(model.head.out, "weight", None) is table
    unread = 0 if tied else _unread(model.embedding, model.spec.vocab)
    if model.decoder is not None and decoder is not None and decoder.positions is not None and model.decoder.positions is not None:
        unread += _unread(model.decoder.positions, decoder.positions.length)
    return _size(model) - unread + cache


def _unread(table: nn.Module, rows: int) -> int:
    """The bytes of all rows but one."""
    return _size(table) * (rows - 1) // rows


def _size(module: nn.Module) -> int:
    """The bytes of all weights; weights that several parts share count once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
