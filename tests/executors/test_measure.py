"""The figures of a measurement, with a clock and a session whose every step takes a known time."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import config_of, golden_model
from tgen.executors import measure
from tgen.executors.measure import Measurement, bytes_per_step, peak_memory, read_bandwidth

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
def test_bytes_per_step(name: str, tied: bool) -> None:
    head = golden_model(name).spec.head
    assert head is not None and head.tied is tied
    assert bytes_per_step(golden_model(name), LENGTH) == llama_bytes(name, tied=tied)


def test_a_row_of_the_positions_is_read() -> None:
    config = config_of("gpt2")
    width, inner = config["n_embd"], 4 * config["n_embd"]
    layer = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    outside = config["vocab_size"] * width + 2 * width + width
    expected = 4 * (config["n_layer"] * (layer + 2 * width * LENGTH) + outside)
    assert bytes_per_step(golden_model("gpt2"), LENGTH) == expected


def test_half_the_format_is_half_the_bytes() -> None:
    model = golden_model("gpt2")
    assert bytes_per_step(copy.deepcopy(model).to(torch.bfloat16), LENGTH) * 2 == bytes_per_step(model, LENGTH)


class Clock:
    """A clock that advances only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedSession:
    """Ten milliseconds an id of the prompt, and two for a step: in the first run, which warms up, ten times as long."""

    clock: Clock
    opened = 0

    def __init__(self, *_: object) -> None:
        type(self).opened += 1
        self.slow = 10 if self.opened <= 2 else 1

    def admit(self, sources: Sequence[None]) -> None:
        assert len(sources) == 1

    def extend(self, rows: Sequence[Sequence[int]]) -> None:
        ((*ids,),) = rows
        self.clock.now += self.slow * (0.01 * len(ids) if len(ids) > 1 else 0.002)


def test_speeds_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of 4 and 8 ids, each with 6 new ones; the warm-up does not count."""
    model, clock = golden_model("llama3"), Clock()
    monkeypatch.setattr(TimedSession, "clock", clock, raising=False)
    monkeypatch.setattr(TimedSession, "opened", 0)
    monkeypatch.setattr(measure, "TorchSession", TimedSession)
    monkeypatch.setattr(time, "perf_counter", clock)
    for context, found in zip((4, 8), measure.measure(model, [4, 8], 6, 1), strict=True):
        assert isinstance(found, Measurement)
        assert found.context == context
        assert found.prefill_speed == pytest.approx(100)
        assert found.first_token_seconds == pytest.approx(0.01 * context)
        assert found.decode_speed == pytest.approx(500)
        assert found.bytes_per_second == pytest.approx(bytes_per_step(model, context + 3) * 500)
        assert found.peak_memory > 2**20


def test_bandwidth_is_that_of_the_fastest_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.5, 0.25, 0.125, 0.25, 0.5])
    monkeypatch.setattr(measure, "READ_BYTES", 4096)
    monkeypatch.setattr(measure, "_seconds", lambda _: next(seconds))
    assert read_bandwidth() == 4096 / 0.125


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_in_bytes() -> None:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    assert peak_memory() == pytest.approx(int(line.split()[1]) * 1024, rel=0.05)
