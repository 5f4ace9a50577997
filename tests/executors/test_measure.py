"""The figures of a measurement, with a clock and a session whose every step takes a known time."""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import GOLDEN, config_of, golden_model
from tgen.checkpoint.container import open_checkpoint
from tgen.executors import measure
from tgen.executors.formats import peak_memory
from tgen.executors.measure import Measurement, cold_start
from tgen.executors.open import open_executor
from tgen.executors.torch.reading import step_bytes
from tgen.options import RunOptions
from tgen.spec.cache import row_numbers
from tgen.spec.shapes import active_parameter_count

LENGTH = 10


def llama_bytes(name: str, *, tied: bool) -> Any:
    """A decode step of a golden Llama in float32, counted from its config.json."""
    config = config_of(name)
    width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or width // heads
    biases = (heads + 2 * kv_heads) * head_dim if config["model_type"] == "qwen2" else 0
    norms = 2 * width + (2 * head_dim if config["model_type"] == "qwen3" else 0)
    attention = 2 * width * heads * head_dim + 2 * width * kv_heads * head_dim
    layer = attention + 3 * width * config["intermediate_size"] + norms + biases
    outside = config["vocab_size"] * width + width + (0 if tied else width)  # the head, the last norm, a row of the embedding
    cache = 2 * kv_heads * head_dim * LENGTH
    return 4 * (int(config["num_hidden_layers"]) * (layer + cache) + outside)


@pytest.mark.parametrize(
    ("name", "tied"), [("llama3", True), ("mistral", False), ("qwen2_window", False), ("qwen2", True), ("qwen3", True)]
)
def test_step_bytes(name: str, tied: bool) -> None:
    head = golden_model(name).spec.head
    assert head is not None and head.tied is tied
    assert step_bytes(golden_model(name), LENGTH) == llama_bytes(name, tied=tied)


def test_a_row_of_the_positions_is_read() -> None:
    config = config_of("gpt2")
    width, inner = config["n_embd"], 4 * config["n_embd"]
    layer = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    outside = config["vocab_size"] * width + 2 * width + width
    expected = 4 * (config["n_layer"] * (layer + 2 * width * LENGTH) + outside)
    assert step_bytes(golden_model("gpt2"), LENGTH) == expected


def test_only_the_experts_of_a_token_are_read() -> None:
    """Two of four."""
    spec = golden_model("mixtral").spec
    read = active_parameter_count(spec) - (spec.vocab - 1) * spec.width + row_numbers(spec, LENGTH)
    assert step_bytes(golden_model("mixtral"), LENGTH) == 4 * read


def test_half_the_format_is_half_the_bytes() -> None:
    model = golden_model("gpt2")
    assert step_bytes(copy.deepcopy(model).to(torch.bfloat16), LENGTH) * 2 == step_bytes(model, LENGTH)


class Clock:
    """A clock that advances only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedModel:
    """Ten milliseconds an id of the prompt; a step takes two, and a quarter of one for each further row. The first run of each context,
    which warms up, takes ten times as long. Of every second context, sixteen rows do not fit.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.opened = 0

    def open(self) -> Any:
        self.opened += 1
        return TimedSession(self.clock, 10 if self.opened <= 2 else 1)

    def step_bytes(self, length: int) -> int:
        return 1000 + length

    def row_bytes(self, tokens: int) -> int:
        return tokens

    def free_bytes(self) -> int:
        return 16 * 2 * 12

    def reader(self, size: int) -> Any:
        """Every second read takes 4 milliseconds, the others 5."""
        assert size == measure.READ_BYTES
        times = itertools.cycle((0.005, 0.004))

        def read() -> None:
            self.clock.now += next(times)

        return read


class TimedSession:
    def __init__(self, clock: Clock, slow: int) -> None:
        self.clock = clock
        self.slow = slow
        self.lengths: list[int] = []

    def admit(self, sources: Sequence[None]) -> None:
        self.lengths += [0] * len(sources)

    def select(self, rows: Sequence[int]) -> None:
        self.lengths = [self.lengths[row] for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        self.lengths = [min(old, new) for old, new in zip(self.lengths, lengths, strict=True)]

    def mark(self, row: int) -> None:
        assert row == 0

    def extend(self, rows: Sequence[Sequence[int]]) -> None:
        prompt = self.lengths == [0]
        assert prompt or min(map(len, rows)) == max(map(len, rows)) == 1
        self.lengths = [length + len(ids) for length, ids in zip(self.lengths, rows, strict=True)]
        self.clock.now += self.slow * (0.01 * len(rows[0]) if prompt else 0.002 + 0.00025 * (len(rows) - 1))
        assert max(self.lengths) <= 14


def test_speeds_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of 6 and 8 ids, each with 6 new ones; the warm-up does not count."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    for context, found in zip((6, 8), measure.measure(TimedModel(clock), 100, [6, 8], 6, 1), strict=True):  # type: ignore[arg-type]
        assert isinstance(found, Measurement)
        assert found.context == context
        assert found.prefill_speed == pytest.approx(100)
        assert found.first_token_seconds == pytest.approx(0.01 * context)
        assert found.decode_speed == pytest.approx(500)
        batches = {4: 4 / 0.00275, 16: 16 / 0.00575} if context == 6 else {4: 4 / 0.00275}
        assert found.batch_speeds == pytest.approx(batches)
        assert found.bytes_per_second == pytest.approx((1000 + context + 3) * 500)
        assert found.memory_bytes_per_second == pytest.approx(measure.READ_BYTES / 0.004)
        assert found.share == pytest.approx(found.bytes_per_second / found.memory_bytes_per_second)
        assert found.peak_memory > 2**20


def test_a_cold_start_is_a_whole_process(capfd: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    found = cold_start([sys.executable, "-c", "import time; print('x'); time.sleep(0.2)"], 1)
    assert found is not None
    assert 0.2 <= found <= time.perf_counter() - started
    assert cold_start([sys.executable, "-c", "import sys; sys.exit('no')"], 1) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_a_reader_reads_numbers(executor: Any) -> None:
    assert open_executor(open_checkpoint(GOLDEN / "llama3"), RunOptions(executor=executor)).reader(2**20)() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_in_bytes() -> None:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    assert peak_memory() == pytest.approx(int(line.split()[1]) * 1024, rel=0.05)
