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
from tests.conftest import golden_model
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


def start_added(folder: Path) -> Path:
    """The folder with a tokenizer that puts a start token in front, as those of Llama and Gemma do."""
    path = folder / "tokenizer.json"
    start = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
    single = [start, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {"<|end|>": {"id": "<|end|>", "ids": [START], "tokens": ["<|end|>"]}}
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": tokens}
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "post_processor": template}), "utf-8")
    return folder


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_sums_equal_a_slow_computation(ask: Ask, copy_golden: Callable[[str], Path], name: str, repeats: int, added: bool) -> None:
    text = TEXT * repeats
    folder = start_added(copy_golden(name)) if added else copy_golden(name)
    ids = Tokenizer.load(folder).encode(text)
    assert (ids[0] == START) == added
    assert (len(ids) > LENGTH) == (repeats > 1)
    expected = slow(name, ids)
    said = ask("score", text, "-m", folder, "--json", "--tokens").json
    assert [one["id"] for one in said["token_logprobs"]] == ids[1:]
    assert [one["logprob"] for one in said["token_logprobs"]] == pytest.approx(expected, abs=1e-4)
    size = len(text.encode()) if added else len(text.encode()) - 2  # the first token, "On", is not scored
    assert (said["model"], said["tokens"], said["bytes"]) == (name, len(ids) - 1, size)
    assert said["logprob"] == pytest.approx(sum(expected), rel=1e-5)
    assert said["perplexity"] == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-4)
    assert said["bits_per_byte"] == pytest.approx(-sum(expected) / math.log(2) / size, rel=1e-5)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_tokens_have_the_log_probabilities_that_generate_shows(
    ask: Ask, copy_golden: Callable[[str], Path], name: str, added: bool
) -> None:
    folder = start_added(copy_golden(name)) if added else copy_golden(name)
    prompt = "Once upon"
    # Digits are tokens of their own, so the text is cut into the same ids when it is read again.
    said = ask("generate", prompt, "-m", folder, "-n", "9", "--seed", "1", "--regex", "[0-9]{8}", "--json", "--logprobs", "0").json
    (choice,) = said["choices"]
    scored = ask("score", prompt + choice["text"], "-m", folder, "--json", "--tokens").json["token_logprobs"]
    written = scored[-len(choice["tokens"]) :]
    assert [one["id"] for one in written] == choice["tokens"]
    assert [one["logprob"] for one in written] == pytest.approx(choice["logprobs"]["token_logprobs"], abs=1e-4)


def test_a_person_reads_the_same_numbers(ask: Ask) -> None:
    said = ask("score", TEXT, "-m", golden("gpt2"), "--json", "--tokens").json
    *tokens, count, size, total, perplexity, bits = ask("score", "-m", golden("gpt2"), "--tokens", stdin=TEXT.encode()).out.splitlines()
    assert [line.split("\t") for line in tokens] == [
        [f"{one['logprob']:.4f}", str(one["id"]), repr(one["token"])] for one in said["token_logprobs"]
    ]
    assert (count, size) == (f"tokens           {said['tokens']}", f"bytes            {said['bytes']}")
    assert total == f"log-probability  {said['logprob']:.4f}"
    assert perplexity == f"perplexity       {said['perplexity']:.4f}"
    assert bits == f"bits per byte    {said['bits_per_byte']:.4f}"
    assert "token_logprobs" not in ask("score", TEXT, "-m", golden("gpt2"), "--json").json


@pytest.mark.parametrize(
    ("text", "added", "size"),
    [
        ("Once", False, 2),
        ("Once", True, 4),
        ("<|end|>Once", False, 4),  # who writes the start token has the whole text scored
        ("日本", False, 6),  # a token that only begins a character is not taken off
        ("日本", True, 6),
    ],
)
def test_bytes_are_those_of_the_scored_tokens(ask: Ask, copy_golden: Callable[[str], Path], text: str, added: bool, size: int) -> None:
    folder = start_added(copy_golden("gpt2")) if added else copy_golden("gpt2")
    assert ask("score", text, "-m", folder, "--json").json["bytes"] == size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["", "-m", golden("gpt2")], ["too short to score", "two tokens"]),
        (["!", "-m", golden("gpt2")], ["too short to score", "two tokens"]),
        (["-m", golden("gpt2")], ["standard input is empty"]),
        (["x", "-m", golden("bert")], ["decoder-only; bert is encoder-only", "tgen fill, tgen embed"]),
        (["x", "-m", golden("marian")], ["decoder-only; marian is encoder-decoder", "tgen translate"]),
    ],
)
def test_what_cannot_be_scored(ask: Ask, arguments: list[str], words: list[str]) -> None:
    err = ask("score", *arguments, code=2).err
    assert [word for word in words if word not in err] == [], err
