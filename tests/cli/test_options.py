"""Options that commands share: each is declared once, and none takes an empty value for the default or for the current folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import tgen
from tests.cli.conftest import Ask
from tests.cli.processes import environment, golden
from tgen.events import Note
from tgen.options import DECLARED, RunOptions
from tgen.values import declarations

EMPTY = [
    (["generate", "x", "-m", ""], "--model"),
    (["generate", "x", "--model="], "--model"),
    (["translate", "x", "-m", ""], "--model"),
    (["info", ""], "MODEL"),
    (["info", "-m", ""], "--model"),
    (["generate", "-f", ""], "--file"),
    (["generate", "x", "--prompt-cache", ""], "--prompt-cache"),
    (["generate", "x", "--stop", "a", "--stop", ""], "--stop"),
    (["generate", "x", "--json-schema", ""], "--json-schema"),
    (["generate", "x", "--system", ""], "--system"),
    (["generate", "x", "--temperature", ""], "--temperature"),
    (["batch", ""], "FILE"),
    (["batch", "-o", ""], "--output"),
    (["attention", "x", "--svg", ""], "--svg"),
    (["train", "x", "-o", ""], "--output"),
    (["tokenize", "x", "-m", ""], "--model"),
]


@pytest.mark.parametrize(("arguments", "name"), EMPTY)
def test_an_empty_value_is_refused_by_name(ask: Ask, arguments: list[str], name: str) -> None:
    said = ask(*arguments, code=2)
    hint = "give a value, or leave it out; a shell variable there may be unset"
    assert said.err == f"error: {name} must not be empty\nhint: {hint}\n"
    assert said.out == ""


def test_a_text_and_a_variable_may_be_empty(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGEN_MODEL", "")
    assert ask("tokenize", "", "--ids").out == "0\n"  # the token that starts every text


# A program that adds an option to the record before the commands are made, and asks each command for help.
ADDED = """
import dataclasses, sys
import tgen.options
from tgen.declaration import SAMPLING, declared

declaration = declared("7th: hot.", SAMPLING, "FLOAT", aliases=("--hot",), low=0, high=1, folder=True)
added = dataclasses.field(default=0.5, metadata=declaration)
tgen.options.GenerationOptions = dataclasses.make_dataclass(
    "GenerationOptions", [("top_h", float, added)], bases=(tgen.options.GenerationOptions,), frozen=True
)
from tgen.cli.main import COMMANDS, run
for command in COMMANDS:
    print(f"== {command}")
    run([command, "--help"])
"""


def test_a_field_of_the_record_is_an_option_of_the_commands_that_take_it() -> None:
    done = subprocess.run([sys.executable, "-c", ADDED], env=environment(COLUMNS="120"), capture_output=True, check=True, text=True)
    pages = dict(page.split("\n", 1) for page in done.stdout.split("== ")[1:])
    shown = " ".join(pages["generate"].split())
    assert "--top-h, --hot FLOAT 7th: hot. [0 to 1; default: the model's, else 0.5]" in shown
    assert [command for command, page in pages.items() if "--top-h" in page] == ["generate", "chat", "batch", "explain", "serve"]


OTHERS = ["num_beams", "stop", "samples", "logprobs"]
OF_CHAT = ["num_beams", "ignore_eos", "json_schema", "regex", "choices", "samples", "logprobs"]


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("generate", []),
        ("batch", []),
        ("explain", OTHERS),
        ("chat", OF_CHAT),
        (
            "translate",
            [name for name in DECLARED if name not in ("num_beams", "max_new_tokens", "repetition_penalty", "no_repeat_ngram_size")],
        ),
        *((command, list(DECLARED)) for command in ("score", "fill", "embed")),
        ("attention", [*DECLARED, "executor", "quantize"]),
    ],
)
def test_each_command_takes_its_options_and_no_others(ask: Ask, command: str, without: list[str]) -> None:
    flags = set(re.findall(r"^  .*?(--[a-z-]+)", ask(command, "--help").out, flags=re.MULTILINE))
    for name in [*DECLARED, *declarations(RunOptions)]:
        assert (f"--{name.replace('_', '-')}" in flags) == (name not in without), name


@pytest.mark.parametrize("flag", ["--top-k", "--temp", "-n", "--threads", "--repeat-penalty", "--num-return-sequences"])
def test_every_name_of_an_option_is_checked_alike(ask: Ask, flag: str) -> None:
    assert "-3" in ask("generate", "x", flag, "-3", code=2).err


@pytest.mark.parametrize("text", ["\\n", "a\\tb"])
def test_a_backslash_and_a_letter_in_a_stop_string_get_a_note(ask: Ask, text: str) -> None:
    """On the command line, in a line of a batch and in Python."""
    note = f"--stop {text} holds a backslash and a letter, not a line break or a tab: a shell writes those as $'\\n' and $'\\t'"
    command = ("x", "-m", golden("gpt2"), "-n", "2", "--seed", "1")
    assert ask("generate", *command, "--stop", text).err == f"warning: {note}\n"
    assert ask("generate", *command, "--stop", text.replace("\\n", "\n").replace("\\t", "\t"), "--stop", "\\").err == ""
    line = json.dumps({"prompt": "x", "stop": [text]}).encode()
    assert ask("batch", *command[1:], stdin=line).json["warnings"] == [note]
    assert Note(note) in list(tgen.load(golden("gpt2")).stream("x", max_new_tokens=2, stop=[text]))
