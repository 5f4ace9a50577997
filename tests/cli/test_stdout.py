"""What a model's text can do to a pipe or a terminal: nothing, even where its vocabulary is made to."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import TGEN, TIMEOUT, environment
from tests.conftest import GOLDEN
from tests.fuzz.runner import Worker
from tgen.ui.harmless import harmless

# What a terminal would obey, what a markup language would, and what looks like a message.
PIECES = [
    "\x1b]52;c;QUJD\x07",
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[H",
    "\x1b[31m",
    "\x1bP+q544e\x1b\\",
    "\x9b31m",
    "\x08\x08\x08",
    "\r",
    "\x00",
    "\x7f",
    "\u202e",
    "[/INST]",
    "[bold]",
    "[/bold]",
    "[link=file:///etc/passwd]",
    "[red on blue]",
    "[/]",
    "\\[",
    ":smile:",
    "\nerror: owned",
    "é日",
    "\t",
]
MARKUP = ["[/INST]", "[bold]", "[/bold]", "[link=file:///etc/passwd]", "[red on blue]", "[/]", ":smile:"]
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\r?\x1b\[(?:2K|1A)")  # colours, and what an animation on stderr needs
OPTIONS = "--seed 3 -n 60 --ignore-eos --temperature 99 --top-k 0 --top-p 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model all of whose words are hostile."""
    folder = shutil.copytree(GOLDEN / "gpt2", tmp_path_factory.mktemp("hostile") / "model")
    tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    size = len(tokenizer["model"]["vocab"])
    vocab = {f"{PIECES[number % len(PIECES)]}{number}": number for number in range(1, size)} | {"<|end|>": 0}
    vocab = {piece: number for piece, number in vocab.items() if number != 5} | {"a": 5}
    tokenizer |= {"pre_tokenizer": None, "decoder": {"type": "Fuse"}}
    tokenizer["model"] |= {"vocab": vocab, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def arguments(folder: Path) -> list[str]:
    """A command line whose text holds most of the pieces."""
    return ["generate", "aa", "-m", str(folder), *OPTIONS.split()]


@pytest.fixture(scope="module")
def text(arguments: list[str], folder: Path, worker: Worker) -> str:
    """What it writes, put together from its tokens."""
    found = json.loads(worker.run(*arguments, "--json", "--logprobs", "0").out)["choices"][0]
    spelled = {number: piece for piece, number in json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"].items()}
    text = "".join(spelled[number] for number in found["tokens"] if number)
    assert [piece for piece in PIECES if piece not in text] == []
    assert found["text"] == text
    return text


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("{tgen} > out", {}),
        ("{tgen} | cat > out", {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "COLUMNS": "10"}),
        ("{tgen} 2>/dev/null > out", {"TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}),
        ("nohup {tgen} > out 2> err", {"PYTHONIOENCODING": "utf-16"}),
        ("script -qec {quoted} /dev/null", {}),
    ],
)
def test_a_file_and_a_pipe_get_exactly_the_text(
    text: str, arguments: list[str], tmp_path: Path, line: str, changes: dict[str, str]
) -> None:
    """`script` gives a terminal to all streams, of which stdout is then sent to a file."""
    program = line.split()[0]
    if program in ("script", "nohup") and shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    tgen = shlex.join([TGEN, *arguments])
    command = line.format(tgen=tgen, quoted=shlex.quote(f"{tgen} > out"))
    subprocess.run(
        ["sh", "-c", command],
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
        cwd=tmp_path,
    )
    assert (tmp_path / "out").read_bytes() == text.encode()


def shown_on_terminal(worker: Worker, *arguments: str, **changes: str) -> str:
    """What reaches a terminal wide enough that nothing has to be broken, without the styles that tgen itself sets."""
    ended = worker.on_terminal(*arguments, columns=2000, variables=environment(**changes))
    assert ended.code == 0, ended.out
    shown = ended.out.decode()
    if changes.get("TERM") == "dumb" or "NO_COLOR" in changes:
        assert "\x1b" not in shown
    return OWN.sub("", shown)


@pytest.mark.parametrize("changes", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLORTERM": "truecolor", "FORCE_COLOR": "1"}])
def test_a_terminal_gets_the_text_made_harmless(text: str, arguments: list[str], worker: Worker, changes: dict[str, str]) -> None:
    shown = shown_on_terminal(worker, *arguments, "--quiet", **changes)
    assert shown == harmless(f"aa{text}") + ("" if text.endswith("\n") else "\n")


COMMANDS: dict[str, list[str]] = {
    "coloured": ["--show-probs"],
    "verbose": ["--verbose", "--stop", "\x1b]52;c;\x07[bold]"],
    "samples": ["--samples", "2", "--echo"],
    "json": ["--json", "--logprobs", "3"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_lets_it_through(arguments: list[str], worker: Worker, name: str) -> None:
    assert_harmless(shown_on_terminal(worker, *arguments, *COMMANDS[name]))


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "aa", "-n", "8", "--top-k", "0", "--temperature", "99", "--seed", "1"],
        ["score", "aaaa"],
        ["tokenize", "--decode", " ".join(map(str, range(1, 60)))],
        ["tokenize", "--decode", " ".join(map(str, range(1, 60))), "--json"],
        ["attention", "aa"],
        ["info"],
    ],
    ids=lambda command: " ".join(command)[:20],
)
def test_no_command_lets_it_through(folder: Path, worker: Worker, command: list[str]) -> None:
    shown = shown_on_terminal(worker, *command, "-m", str(folder))
    assert_harmless(shown)
    if "--decode" in command:
        assert [mark for mark in MARKUP if mark not in shown] == []


def test_a_hostile_folder_name_is_shown_harmlessly(folder: Path, worker: Worker, tmp_path: Path) -> None:
    """In what is data, in statistics and in errors."""
    evil = shutil.copytree(folder, tmp_path / "\x1b]52;c;QUJD\x07[bold]\nerror: x")
    for arguments in (["info"], ["generate", "aa", "-n", "2", "-v"], ["fill", "aa"]):
        ended = worker.on_terminal(*arguments, "-m", str(evil), columns=2000)
        assert ended.code == (2 if arguments[0] == "fill" else 0)
        assert_harmless(OWN.sub("", ended.out.decode()))
        assert b"[bold]" in ended.out


def assert_harmless(shown: str) -> None:
    """No control character but those of lines and columns."""
    assert {character for character in shown if unicodedata.category(character) == "Cc"} <= set("\n\t")
    assert "\u202e" not in shown
