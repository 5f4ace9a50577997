"""`tgen score` against a slow computation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, golden_model
from tgen.text.tokenizer import Tokenizer

TEXT = "Once upon a time, il était une 日本."
LENGTH = 64
START = 0


def slow(name: str, ids: list[int]) -> list[float]:
    """The log-probability of each id but the first, each from a pass of its own over what the windows leave before it."""
    model = golden_model(name)
    found = []
    for place in range(1, len(ids)):
        first = 0 if place <= LENGTH else (place - LENGTH - 1) // (LENGTH // 2 + 1) * (LENGTH // 2 + 1) + LENGTH // 2 + 1
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids[first:place]]))[0, -1])
        found.append(float(logits.double().log_softmax(-1)[ids[place]]))
    return found


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_sums_equal_a_slow_computation(ask: Ask, name: str, repeats: int) -> None:
    text = TEXT * repeats
    ids = Tokenizer.load(GOLDEN / name).encode(text)
    assert (len(ids) > LENGTH) == (repeats > 1)
    expected = slow(name, [START, *ids])
    said = ask("score", text, "-m", golden(name), "--json", "--tokens").json
    assert [one["id"] for one in said["token_logprobs"]] == ids
    assert [one["logprob"] for one in said["token_logprobs"]] == pytest.approx(expected, abs=1e-4)
    assert (said["model"], said["tokens"], said["bytes"]) == (name, len(ids), len(text.encode()))
    assert said["logprob"] == pytest.approx(sum(expected), rel=1e-5)
    assert said["perplexity"] == pytest.approx(math.exp(-sum(expected) / len(ids)), rel=1e-4)
    assert said["bits_per_byte"] == pytest.approx(-sum(expected) / math.log(2) / len(text.encode()), rel=1e-5)


def test_a_person_reads_the_same_numbers(ask: Ask) -> None:
    said = ask("score", TEXT, "-m", golden("gpt2"), "--json", "--tokens").json
    *tokens, count, size, total, perplexity, bits = ask("score", "-m", golden("gpt2"), "--tokens", stdin=TEXT.encode()).out.splitlines()
    assert [line.split("\t") for line in tokens] == [[f"{one['logprob']:.4f}", repr(one["token"])] for one in said["token_logprobs"]]
    assert (count, size) == (f"tokens           {said['tokens']}", f"bytes            {said['bytes']}")
    assert total == f"log-probability  {said['logprob']:.4f}"
    assert perplexity == f"perplexity       {said['perplexity']:.4f}"
    assert bits == f"bits per byte    {said['bits_per_byte']:.4f}"
    assert "token_logprobs" not in ask("score", TEXT, "-m", golden("gpt2"), "--json").json


def test_without_a_start_token_the_first_token_is_given(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("gpt2")
    for path in (folder / "config.json", folder / "generation_config.json"):
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "bos_token_id"}))
    ids = Tokenizer.load(folder).encode("Once upon")
    said = ask("score", "Once upon", "-m", folder, "--json", "--tokens").json
    assert [one["id"] for one in said["token_logprobs"]] == ids[1:]
    assert said["logprob"] == pytest.approx(sum(slow("gpt2", ids)), rel=1e-5)
    assert "too short to score" in ask("score", "!", "-m", folder, code=2).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["", "-m", golden("gpt2")], ["too short to score", "two tokens"]),
        (["-m", golden("gpt2")], ["standard input is empty"]),
        (["x", "-m", golden("bert")], ["decoder-only; bert is encoder-only", "tgen fill, tgen embed"]),
        (["x", "-m", golden("marian")], ["decoder-only; marian is encoder-decoder", "tgen translate"]),
    ],
)
def test_what_cannot_be_scored(ask: Ask, arguments: list[str], words: list[str]) -> None:
    err = ask("score", *arguments, code=2).err
    assert [word for word in words if word not in err] == [], err
