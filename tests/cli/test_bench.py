"""`tgen bench` measures what it says, whatever the figures are."""

from __future__ import annotations

import json

import pytest

from tests.conftest import GOLDEN
from tgen.cli.main import run

FIGURES = ("prefill_speed", "first_token_seconds", "decode_speed", "bytes_per_second", "peak_memory")


@pytest.mark.parametrize("name", ["llama3", "bloom"])
def test_a_row_for_each_context(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "-m", str(GOLDEN / name), "-c", "20", "-c", "3", "-n", "4", "--repeats", "1", "-t", "1"]
    assert run([*arguments, "--json"]) == 0
    results = json.loads(capfd.readouterr().out)["results"]
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


def test_a_context_that_does_not_fit(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", str(GOLDEN / "llama3"), "-c", "64"]) == 2
    assert "do not fit the model's context of 64" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_only_decoders(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-m", str(GOLDEN / name)]) == 2
    assert "needs a model that is decoder-only" in capfd.readouterr().err
