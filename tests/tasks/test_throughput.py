"""What a batch gains, by a clock that is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.engine.scripted import END, ScriptedExecutor, byte_tokenizer, only
from tgen.engine.generator import Generator
from tgen.tasks.throughput import Throughput, throughput


def test_medians_of_both_ways_and_of_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 requests of 4 new tokens each are 12 tokens; the first turn warms up and does not count."""
    seconds = [100, 100, 6, 2, 4, 4, 12, 3]  # one after another and at once, in turns
    times = iter([time for second in seconds for time in (1000, 1000 + second)])
    monkeypatch.setattr("tgen.tasks.throughput.time", SimpleNamespace(perf_counter=lambda: next(times)))
    generator = Generator(ScriptedExecutor(lambda _: only(65), 50), byte_tokenizer(), context=50, end_tokens=frozenset([END]))
    assert throughput(generator, rows=3, context=5, new_tokens=4, repeats=3) == Throughput(3, one_after_another=2, at_once=4, gain=3)
