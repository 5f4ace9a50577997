"""`tgen info` foretells the memory of a run: of a whole process, for any length of prompt and text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import TGEN, environment, golden, tgen
from tests.conftest import GOLDEN
from tests.sweeps import sweep
from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.resolve import resolve
from tgen.cli import main
from tgen.text.tokenizer import Tokenizer

Captured = pytest.CaptureFixture[str]
RUNS = [(quantize, *length) for quantize in ("none", "int8") for length in ((1, 700), (250, 8), (3500, 8))]
WORDS = "The old king went to the sea and saw a little bird that sang of summer. " * 60
PARTS = ("memory_of_process", "memory_of_weights", "memory_of_cache", "memory_of_buffers")
# A process's highest memory begins with that of the process that forked it, so a small one starts tgen.
CHILD = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(status, 1024 * used.ru_maxrss, file=sys.stderr)
"""


def peak(*arguments: str, **changes: str) -> int:
    """The most bytes that a process of tgen held."""
    words = [sys.executable, "-c", CHILD, TGEN, *arguments]
    done = subprocess.run(words, env=environment(**changes), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    status, found = done.stderr.split()[-2:]
    assert status == "0", done.stderr
    return int(found)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages in other ways")
@pytest.mark.parametrize(("quantize", "characters", "new"), sweep(RUNS, lambda run: run in RUNS[2:5:2]))
def test_a_whole_process_takes_what_is_foretold(quantize: str, characters: int, new: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(resolve("storyteller"))
    prompt = len(Tokenizer.load(checkpoint.texts, checkpoint.spec.vocab).encode(WORDS[:characters]))
    run = ("-m", "storyteller", "--quantize", quantize, "-n", str(new))
    changes = {"XDG_CACHE_HOME": str(tmp_path)}
    tgen("generate", "a", *run[:-1], "1", env=environment(**changes))  # packs the weights
    facts = json.loads(tgen("info", *run, "-c", str(prompt), "--json", env=environment(**changes)).stdout)
    assert facts["memory_to_run"] == sum(facts[part] for part in PARTS)
    assert facts["memory_to_run"] == pytest.approx(peak("generate", WORDS[:characters], *run, "--ignore-eos", "-q", **changes), rel=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages in other ways")
def test_so_does_a_translation() -> None:
    facts = json.loads(tgen("info", "-m", "english-french", "-c", "10", "-n", "20", "--json").stdout)
    assert facts["memory_to_run"] == pytest.approx(peak("translate", "The little bird sang of summer.", "-n", "20"), rel=0.05)


def facts_of(capsys: Captured, *arguments: str) -> Any:
    assert main.run(["info", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("asked", "length"),
    [
        (["storyteller"], (524, 500, 1)),  # its own number of new tokens, and as many before as fit its context
        (["storyteller", "-c", "1000"], (1000, 24, 1)),
        (["storyteller", "-n", "5000", "-c", "1"], None),
        (["storyteller", "-n", "1000"], (24, 1000, 1)),
        (["storyteller", "-c", "1023", "-n", "1"], (1023, 1, 1)),
        (["storyteller", "-c", "1024"], None),
        (["storyteller", "-c", "1024", "-n", "1"], None),
        (["english-french"], (96, 95, 4)),  # an encoder reads the text, and the answer has four beams
        (["english-french", "-c", "96", "-n", "95"], (96, 95, 4)),
        (["english-french", "-c", "97"], None),
        (["english-french", "-n", "96"], None),
        ([golden("bert")], (64, 0, 0)),
        ([golden("bert"), "-c", "65"], None),
        ([golden("bert"), "-n", "5"], None),
        (["storyteller", "-c", "0"], None),
        (["storyteller", "-n", "0"], None),
    ],
)
def test_the_length_is_what_a_run_takes_or_what_is_asked(capsys: Captured, asked: list[str], length: tuple[int, ...] | None) -> None:
    if length is None:
        assert main.run(["info", *asked]) == 2
        assert capsys.readouterr().err.startswith("error: --")
        return
    facts = facts_of(capsys, *asked)
    assert tuple(facts["memory_to_run_for"].values()) == length


def test_a_longer_text_takes_more_cache_and_a_longer_prompt_more_buffers(capsys: Captured) -> None:
    few, many = (facts_of(capsys, "storyteller", "-c", "10", "-n", new) for new in ("10", "1000"))
    read = facts_of(capsys, "storyteller", "-c", "1000", "-n", "10")
    assert few["memory_of_cache"] < many["memory_of_cache"] == read["memory_of_cache"]
    assert few["memory_of_buffers"] == many["memory_of_buffers"] < read["memory_of_buffers"]
    assert few["memory_of_weights"] == read["memory_of_weights"]


def test_people_see_it_in_one_row(capsys: Captured) -> None:
    assert main.run(["info", "storyteller", "-c", "1000", "-n", "24"]) == 0
    shown = capsys.readouterr().out.splitlines()
    total = next(line.split()[-1] for line in shown if line.startswith("memory to run  "))
    assert int(total.replace(",", "")) > 60e6
    assert any(line.split("  ")[-1] == "prompt_tokens 1,000, new_tokens 24, rows 1" for line in shown)


def test_torch_makes_no_promise(capsys: Captured) -> None:
    assert "memory_to_run" not in facts_of(capsys, str(GOLDEN / "gpt2"), "--executor", "torch")
