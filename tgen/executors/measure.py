"""Measures how fast a model reads and generates, and the machine's memory bandwidth, which limits decode."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tgen.executors.session import LoadedModel, Session

READ_BYTES = 256 * 2**20
BATCHES = (4, 16)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians over several runs at one length of context: speeds in tokens per second, times in seconds, memory in bytes.

    `bytes_per_second` is how fast the decode of a single row reads weights and cache. `batch_speeds` maps a number of rows to the decode
    speed of these rows together; numbers whose caches do not fit into the memory are left out.
    """

    context: int
    prefill_speed: float
    first_token_seconds: float
    decode_speed: float
    batch_speeds: dict[int, float]
    bytes_per_second: float
    peak_memory: int


def measure(model: LoadedModel, vocab: int, contexts: Sequence[int], new_tokens: int, repeats: int) -> Iterator[Measurement]:
    """A measurement for each length of context. The lengths take turns, so that changes of the machine's speed affect all of them alike."""
    runs: dict[int, list[list[float]]] = {context: [] for context in contexts}
    peaks: dict[int, int] = {}
    for turn in range(repeats + 1):
        for context in contexts:
            session, ids = model.open(), np.random.default_rng(context).integers(0, vocab, context + new_tokens).tolist()
            single = _single(session, ids, context)
            peaks.setdefault(context, peak_memory())
            batches = [_batch(session, ids, context, rows) for rows in _fitting(model, context + new_tokens)]
            if turn:  # the first turn warms up
                runs[context].append([*single, *batches])
    for context in contexts:
        prefill, step, *steps = (statistics.median(seconds) for seconds in zip(*runs[context], strict=False))
        speeds = {rows: rows / seconds for rows, seconds in zip(BATCHES, steps, strict=False)}
        read = model.step_bytes(context + new_tokens // 2)
        yield Measurement(context, context / prefill, prefill, 1 / step, speeds, read / step, peaks[context])


def read_bandwidth(threads: int | None = None) -> float:
    """Bytes per second that `threads` threads together read from memory; None means one for each core.

    Decode cannot be faster than this allows, because it reads every weight for every token.
    """
    count = threads or os.cpu_count() or 1
    parts = np.array_split(np.ones(READ_BYTES // 4, dtype=np.float32), count)
    with ThreadPoolExecutor(count) as pool:
        return READ_BYTES / min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(5))


def cold_start(command: Sequence[str], repeats: int) -> float | None:
    """The median seconds that a whole process takes, whose output is dropped; None if it fails."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            return None
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _single(session: Session, ids: list[int], context: int) -> tuple[float, float]:
    """Seconds of prefill, and the median seconds of a decode step after it."""
    session.admit([None])
    prefill = _seconds(lambda: session.extend([ids[:context]]))
    session.mark(0)
    return prefill, _decode(session, ids[context:], 1)


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
