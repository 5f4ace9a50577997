"""`tgen bench` measures what it says, and shows what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, config_of
from tests.sweeps import sweep
from tgen.cli.main import run
from tgen.executors.measure import Measurement
from tgen.executors.native.library import load
from tgen.tasks.throughput import Throughput

FIGURES = ("prefill_speed", "first_token_seconds", "decode_speed", "bytes_per_second", "peak_memory")


@pytest.mark.parametrize("name", sweep(["llama3", "bloom"], "llama3".__eq__))
def test_a_row_for_each_context(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "-m", str(GOLDEN / name), "-c", "20", "-c", "3", "-n", "4", "--repeats", "1", "-t", "1"]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    results = found["results"]
    expected = "native, [a-z0-9]+ kernel, float32, 1 thread" if load().library else "torch on cpu, float32, 1 threads"
    assert re.fullmatch(expected, found["runs_on"])
    assert found["cold_start_seconds"] > 0
    assert all(set(row["batch_speeds"]) == {"4", "16"} for row in results)
    assert [row["context"] for row in results] == [3, 20]
    assert all(row[figure] > 0 for row in results for figure in FIGURES)
    assert run(arguments) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["context", "3", "20"]


def test_a_batch_beside_its_rows_one_by_one(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "-m", str(GOLDEN / "llama3"), "--batch", "3", "-c", "5", "-n", "4", "--repeats", "1", "-t", "1"]
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["rows"], found["context"], found["new_tokens"]) == (3, 5, 4)
    assert found["gain"] == pytest.approx(found["at_once"] / found["one_after_another"])
    assert run(arguments) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == ["rows", "3"]
    assert run(["bench", "--batch", "1"]) == 2
    assert "--batch must be 2 or more, not 1" in capfd.readouterr().err


FIRST = Measurement(
    64,
    prefill_speed=1234.4,
    first_token_seconds=0.05185,
    decode_speed=98.76,
    batch_speeds={4: 300.04, 16: 1001.0},
    bytes_per_second=3e9,
    memory_bytes_per_second=1.2e10,
    share=0.24,
    peak_memory=345_600_000,
)
SECOND = Measurement(
    1000,
    prefill_speed=99.5,
    first_token_seconds=10.05,
    decode_speed=7.04,
    batch_speeds={4: 25.0},
    bytes_per_second=1.24e10,
    memory_bytes_per_second=1.3e10,
    share=0.99,
    peak_memory=2**30,
)
TABLE = """\
context  prefill tokens/s  first token ms  decode tokens/s  of bandwidth  4 rows  16 rows  peak MB
     64              1234            51.9             98.8           24%   300.0   1001.0      346
   1000               100         10050.0              7.0           99%    25.0  no room     1074
"""


def test_every_figure_of_the_table(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known measurements, in the units of the headings; what was measured is what was asked for."""
    asked: list[Any] = []
    commands: list[Any] = []

    def started(*options: Any) -> float:
        commands.append(options)
        return 1.234

    def measured(_: object, vocab: int, *options: Any) -> Iterator[Measurement]:
        assert vocab == config_of("llama3")["vocab_size"]
        asked.append(options)
        yield from (FIRST, SECOND)

    monkeypatch.setattr("tgen.executors.measure.measure", measured)
    monkeypatch.setattr("tgen.executors.measure.cold_start", started)
    arguments = ("bench", "-m", golden("llama3"), "-c", "9", "-c", "3", "-n", "4", "--repeats", "7")
    said = ask(*arguments)
    assert said.out == TABLE
    assert said.err.endswith("; memory reads 12.5 GB/s; a first token from a cold start takes 1.23 s; medians of 7\n")
    assert commands[0][0][2:8] == ["tgen", "generate", "a", "-n", "1", "-q"]
    assert commands[0][1] == 3
    found = ask(*arguments, "--json").json
    assert (found["model"], found["bytes_per_second"]) == ("llama3", 1.25e10)
    assert found["results"] == json.loads(json.dumps([asdict(FIRST), asdict(SECOND)]))
    assert asked == [([3, 9], 4, 7)] * 2


def test_every_figure_of_a_batch(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(_: object, *options: Any) -> Throughput:
        asked.append(options)
        return Throughput(4, one_after_another=99.7, at_once=1350.6, gain=13.547)

    monkeypatch.setattr("tgen.tasks.throughput.throughput", measured)
    said = ask("bench", "-m", golden("llama3"), "--batch", "4", "-c", "5", "-n", "6", "--repeats", "7")
    assert said.out == "rows  one after another, tokens/s  at once, tokens/s    gain\n" + (
        "   4                          100               1351  13.55x\n"
    )
    assert said.err == "llama3: 4 prompts of 5 tokens, 6 new ones each; medians of 7\n"
    assert asked == [(4, 5, 6, 7)]


def test_a_context_that_does_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", str(GOLDEN / "llama3"), "-c", "64"]) == 2
    assert "do not fit the model's context of 64" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_only_decoders(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", str(GOLDEN / name)]) == 2
    assert "needs a model that is decoder-only" in capfd.readouterr().err
