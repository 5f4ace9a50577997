"""Runs a model's recorded calls in the driver: on another processor under an emulator, on one kernel, or with a sanitizer."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from tests.executors.native.models import LIBRARY, executor, opened, sources_of, spec_of, texts_of
from tests.executors.native.recorder import Recorder
from tests.executors.native.variants import build_library
from tgen.arrays import Logits
from tgen.executors.native import open as opening
from tgen.executors.native.build import LIBRARY as FILE
from tgen.executors.native.session import NativeExecutor

DRIVER = Path(__file__).with_name("driver.cpp")


@dataclass(frozen=True, slots=True)
class Port:
    """A library and a driver for a processor; `emulator` is the command that runs them here."""

    folder: Path
    emulator: Sequence[str] = ()

    def run(self, calls: Path, kernel: str | None = None, emulator: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        """The results stand beside the calls, the name of the kernel in the output."""
        command = [*(self.emulator if emulator is None else emulator), str(self.folder / "driver"), str(self.folder / FILE)]
        words = [str(calls), str(calls.with_suffix(".results")), *([kernel] if kernel else [])]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)

    def results(self, recorded: Recorded, kernel: str) -> list[Logits]:
        """What the kernel gives for recorded calls."""
        ended = self.run(recorded.calls, kernel)
        assert (ended.returncode, ended.stdout) == (0, f"{kernel}\n"), ended
        found = np.fromfile(recorded.calls.with_suffix(".results"), np.float32)
        arrays, start = [], 0
        for expected, stride in recorded.expected:
            size = expected.shape[0] * stride
            arrays.append(found[start : start + size].reshape(-1, stride)[:, : expected.shape[1]])
            start += size
        assert start == found.size
        return arrays


@dataclass(frozen=True, slots=True)
class Recorded:
    """A file of calls, and what each run gave here, with its width in memory."""

    calls: Path
    expected: list[tuple[Logits, int]]


def make_port(folder: Path, compiler: str = "g++", machine: str | None = None, emulator: Sequence[str] = (), speed: str = "-O3") -> Port:
    """Build a library and a driver."""
    build_library(folder, compiler, machine, speed)
    return make_driver(folder, compiler, emulator)


def make_driver(folder: Path, compiler: str, emulator: Sequence[str] = ()) -> Port:
    """Build a driver beside a library."""
    command = [*compiler.split(), "-std=c++17", "-O1", "-Wall", str(DRIVER), "-o", str(folder / "driver"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return Port(folder, emulator)


def record(name: str, dtype: str, kernel: str, folder: Path, threads: int = 2) -> Recorded:
    """Prompts side by side, steps, tails, rows cut, copied and freed, and what an encoder reads; then everything is freed."""
    assert LIBRARY is not None
    calls = folder / f"{name}-{dtype}.calls"
    recorder = Recorder(LIBRARY, calls)
    with mock.patch.object(opening, "loaded", lambda: recorder):
        use(executor.__wrapped__(name, kernel, dtype, threads), name)  # a model that no other test shares
    gc.collect()
    recorder.close()
    return Recorded(calls, recorder.results)


def use(model: NativeExecutor, name: str) -> None:
    """What `record` tells of."""
    if spec_of(name).encoder is not None:
        model.encode(texts_of(name, [1, 40, 7]))
    if spec_of(name).decoder is not None:
        text = texts_of(name, [37])[0]
        session = opened(model, sources_of(name, 2))
        session.extend([text, text[:9]], [3, 1])
        session.extend([[3], [4]])
        session.truncate([5, 10])
        session.select([1, 0, 1])
        session.extend([[1, 2], [3], [4] * 17], [2, 0, 1])
    elif spec_of(name).head is not None:
        model.masked_logits(texts_of(name, [9]), [[3, 1]])
    if name == "odd_gemma":  # attention over several chunks
        session = opened(model, [None])
        session.extend([texts_of(name, [1100])[0]])
        session.extend([[1]])
