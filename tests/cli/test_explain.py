"""`tgen explain` draws what `tgen generate` draws, in 80 columns."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import golden

SAMPLING = ["--seed", "3", "-n", "12", "--ignore-eos", "--temperature", "1.5", "--top-k", "30", "--top-p", "0.8", "--min-p", "0.02"]


@pytest.mark.parametrize("extra", [[], ["--repetition-penalty", "1.5", "--frequency-penalty", "0.5"]])
@pytest.mark.parametrize("name", ["gpt2", "marian"])
def test_the_same_seed_draws_what_generate_draws(ask: Ask, name: str, extra: list[str]) -> None:
    said = ask("explain", "Once", "-m", golden(name), *SAMPLING, *extra, "--json")
    steps = [json.loads(line, parse_constant=pytest.fail) for line in said.out.splitlines()]
    generated = ask("generate", "Once", "-m", golden(name), *SAMPLING, *extra, "--json", "--logprobs", "0").json["choices"][0]
    assert [step["token"] for step in steps] == generated["tokens"]
    assert said.err == ""


@pytest.mark.parametrize("extra", [[], ["--repetition-penalty", "1.5"], ["--temperature", "0"], ["--top-k", "1"]])
def test_a_table_of_80_columns(ask: Ask, extra: list[str]) -> None:
    arguments = ("explain", "Once", "-m", golden("bloom"), *SAMPLING, *extra, "--top", "5")
    steps = [json.loads(line) for line in ask(*arguments, "--json").out.splitlines()]
    blocks = ask(*arguments).out.removesuffix("\n").split("\n\n")
    assert len(blocks) == len(steps) == 12
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80
    for step, block in zip(steps, blocks, strict=True):
        head, *rest = block.splitlines()
        assert head.startswith(f"token {step['number'] + 1}: ")
        rows = [line for line in rest if re.match(r'[* ] "', line)]
        assert [line.startswith("*") for line in rows] == [row["drawn"] for row in step["candidates"]]
        for line, row in zip(rows, step["candidates"], strict=True):
            assert f"{row['logit']:.3f}" in line
            assert line.endswith("cut") == (row["cut_by"] is not None)
            assert ("   score" in block) == any(one["score"] != one["logit"] for one in step["candidates"])


def test_a_seed_that_was_chosen_is_shown(ask: Ask) -> None:
    said = ask("explain", "x", "-m", golden("gpt2"), "-n", "2", "--temperature", "1", "--json")
    seed = re.fullmatch(r"seed (\d+)\n", said.err)
    assert seed
    assert ask("explain", "x", "-m", golden("gpt2"), "-n", "2", "--temperature", "1", "--json", "--seed", seed[1]).out == said.out
    assert ask("explain", "x", "-m", golden("gpt2"), "-n", "1", "-q").err == ""
    assert ask("explain", "x", "-m", golden("gpt2"), "-n", "1", "--temperature", "0").err == ""


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["x", "-m", golden("bert")], ["bert is encoder-only", "tgen fill or tgen embed"], 2),
        (["x", "-m", golden("gpt2"), "--top", "0"], ["--top must be 1 or more, not 0"], 2),
        (["x", "-m", golden("gpt2"), "-n", "0"], ["--max-new-tokens must be 1 or more, not 0"], 2),
        (["x" * 99, "-m", golden("gpt2")], ["99 tokens, the model's context is 64"], 5),
    ],
)
def test_what_cannot_be_explained(ask: Ask, arguments: list[str], words: list[str], code: int) -> None:
    err = ask("explain", *arguments, code=code).err
    assert [word for word in words if word not in err] == [], err
