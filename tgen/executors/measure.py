"""Measures how fast a model reads and generates, and the machine's memory bandwidth, which limits decode."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tgen.executors.formats import peak_memory
from tgen.executors.session import LoadedModel, Session

READ_BYTES = 256 * 2**20
READS = 2  # before a decode, and after it
BATCHES = (4, 16)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians over several runs at one length of context: speeds in tokens per second, times in seconds, memory in bytes.

    `bytes_per_second` is how fast the decode of a single row reads weights and cache, `memory_bytes_per_second` how fast memory was read at
    best just before and after, and `share` the one divided by the other. `batch_speeds` are the decode speeds of several rows together, by
    their number; a number whose caches do not fit into the memory is left out.
    """

    context: int
    prefill_speed: float
    first_token_seconds: float
    decode_speed: float
    batch_speeds: dict[int, float]
    bytes_per_second: float
    memory_bytes_per_second: float
    share: float
    peak_memory: int


def measure(model: LoadedModel, vocab: int, contexts: Sequence[int], new_tokens: int, repeats: int) -> Iterator[Measurement]:
    """A measurement for each length of context. The lengths take turns, so that a machine whose speed drifts treats them alike.

    How fast memory is read, the ceiling of decode, is measured within the same second as a decode: others may use it too.
    """
    runs: dict[int, list[list[float]]] = {context: [] for context in contexts}
    peaks: dict[int, int] = {}
    read: Callable[[], object] | None = None
    for turn in range(repeats + 1):
        for context in contexts:
            session, ids = model.open(), np.random.default_rng(context).integers(0, vocab, context + new_tokens).tolist()
            single = _single(session, ids, context, read)
            peaks.setdefault(context, peak_memory())
            batches = [_batch(session, ids, context, rows) for rows in _fitting(model, context + new_tokens)]
            if turn:  # the first turn warms up
                runs[context].append([*single, *batches])
        read = read or model.reader(READ_BYTES)  # now, because it takes memory of its own
    for context in contexts:
        read_bytes = model.step_bytes(context + new_tokens // 2)
        share = statistics.median(read_bytes / step * once / READ_BYTES for _, step, once, *_ in runs[context])
        prefill, step, once, *steps = (statistics.median(seconds) for seconds in zip(*runs[context], strict=False))
        speeds = {rows: rows / seconds for rows, seconds in zip(BATCHES, steps, strict=False)}
        memory = READ_BYTES / once
        yield Measurement(context, context / prefill, prefill, 1 / step, speeds, read_bytes / step, memory, share, peaks[context])


def cold_start(command: Sequence[str], repeats: int) -> float | None:
    """The median seconds that a whole process takes, whose output is dropped; None if it fails."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            return None
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _single(session: Session, ids: list[int], context: int, read: Callable[[], object] | None) -> tuple[float, float, float]:
    """Seconds of prefill, the median seconds of a decode step after it, and the least seconds of reads before and after the steps."""
    session.admit([None])
    prefill = _seconds(lambda: session.extend([ids[:context]]))
    session.mark(0)
    before = _reads(read)
    step = _decode(session, ids[context:], 1)
    return prefill, step, min(before, _reads(read))


def _reads(read: Callable[[], object] | None) -> float:
    """The least seconds of some reads; infinity without any."""
    return math.inf if read is None else min(_seconds(read) for _ in range(READS))


def _batch(session: Session, ids: list[int], context: int, rows: int) -> float:
    """The median seconds of a decode step of `rows` copies of the first row."""
    session.select([0] * rows)
    session.truncate([context] * rows)
    return _decode(session, ids[context:], rows)


def _decode(session: Session, ids: list[int], rows: int) -> float:
    return statistics.median(_seconds(lambda token=token: session.extend([[token]] * rows)) for token in ids)  # type: ignore[misc]


def _fitting(model: LoadedModel, length: int) -> list[int]:
    """The numbers in BATCHES whose caches fit into half of the free memory."""
    free = model.free_bytes()
    return [rows for rows in BATCHES if free is None or rows * model.row_bytes(length) <= free // 2]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
