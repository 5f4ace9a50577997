"""Where a prompt comes from, and what of a file or of standard input belongs to it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, TIMEOUT, environment, golden, tgen
from tgen.batch.lines import line_batches
from tgen.cli.main import run
from tgen.cli.prompt import PromptSource
from tgen.errors import UsageError
from tgen.ui import input as stdin
from tgen.ui import messages

MARK = b"\xef\xbb\xbf"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file with the bytes that the test is given, which is standard input too."""
    path = tmp_path / "text"
    path.write_bytes(request.param)
    with path.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield path


@pytest.mark.parametrize("source", ["standard input", "dash", "file", "dash as file"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"a\n", "a"),
        (b"a\r\n", "a"),
        (b"a\n\n", "a\n"),
        (b"a\r", "a\r"),
        (b" a ", " a "),
        (b"\n", ""),
        ("é\0".encode(), "é\0"),
        (MARK + b"a\n", "a"),
    ],
    indirect=["path"],
)
def test_all_but_the_newline_that_ends_the_last_line(path: Path, source: str, expected: str) -> None:
    argument, file = {"standard input": (None, None), "dash": (["-"], None), "file": (None, path), "dash as file": (None, Path("-"))}[
        source
    ]
    prompt = PromptSource(argument, file)
    if source == "standard input" and not expected:
        with pytest.raises(UsageError, match="standard input is empty"):
            prompt.read()
    else:
        assert prompt.read() == expected


TOGETHER = [
    (b"one\n", "one\ntwo"),
    (b"one", "one\ntwo"),
    (b"one\n\n", "one\n\ntwo"),
    (b"", "two"),
    (b"\n", "two"),
    (MARK + b"one", "one\ntwo"),
]


@pytest.mark.parametrize("words", [["two"], ["two", "-"], ["-", "two"], ["\ufefftwo"]])
@pytest.mark.parametrize(("path", "expected"), TOGETHER, indirect=["path"])
@pytest.mark.usefixtures("path")
def test_standard_input_and_argument_are_joined(words: list[str], expected: str) -> None:
    assert PromptSource(words, None).read() == expected
    assert PromptSource(words, Path("-")).read() in (expected, "two")  # a file is read once


@pytest.mark.parametrize("path", [b"ab\xff"], indirect=True)
def test_what_is_not_utf8_is_refused_with_its_place(path: Path) -> None:
    with pytest.raises(UsageError, match="standard input is not UTF-8 at byte 2"):
        PromptSource(None, None).read()
    with pytest.raises(UsageError, match="text is not UTF-8 at byte 2"):
        PromptSource(None, path)


def test_a_closed_standard_input_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert PromptSource(["x"], None).read() == "x"
    with pytest.raises(UsageError, match="there is no text"):
        PromptSource(None, None)


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with open(slave) as terminal, open(master):
        monkeypatch.setattr("sys.stdin", terminal)
        assert PromptSource(["x"], None).read() == "x"
        with pytest.raises(UsageError, match="there is no text"):
            PromptSource(None, None)


@pytest.mark.parametrize(
    ("words", "file", "message"),
    [
        (["one", "two"], None, r"unexpected extra argument \(two\)"),
        (["one", "-", "two", "three"], None, r"unexpected extra argument \(two three\)"),
        (["one"], Path("file"), "as an argument or as --file, not both"),
        (["-"], Path("file"), "as an argument or as --file, not both"),
    ],
)
def test_there_is_one_text(words: list[str], file: Path | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PromptSource(words, file)


class Pipe:
    """A pipe in place of standard input, and what is to be written into it."""

    def __init__(self, stdin: IO[str], writing: int) -> None:
        self.stdin, self.writing = stdin, writing
        self.timers: list[threading.Timer] = []

    def later(self, seconds: float, data: bytes) -> None:
        """Write after a while, or close for no data, but not before what was asked for earlier: timers of a busy machine overtake."""
        before = self.timers[-1] if self.timers else None

        def act() -> None:
            if before is not None:
                before.join()
            if data:
                os.write(self.writing, data)
            else:
                self.close()

        self.timers.append(threading.Timer(seconds, act))
        self.timers[-1].start()

    def close(self) -> None:
        os.close(self.writing)
        self.writing = -1


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with open(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        pipe = Pipe(stdin, writing)
        yield pipe
        for timer in pipe.timers:
            timer.join()
        if pipe.writing != -1:
            pipe.close()


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.usefixtures("pipe")
def test_a_silent_pipe_gets_a_note_and_then_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    assert (stdin.NOTE_SECONDS, stdin.GIVE_UP_SECONDS) == (2, 10)
    monkeypatch.setattr(stdin, "NOTE_SECONDS", 0.01)
    monkeypatch.setattr(stdin, "GIVE_UP_SECONDS", 0.02)
    messages.configure("auto", quiet)
    with pytest.raises(UsageError, match=r"silent for 0\.02 seconds") as caught:
        PromptSource(["x"], None).read()
    assert "</dev/null" in (caught.value.hint or "")
    assert "- beside the text" in (caught.value.hint or "")
    note = capsys.readouterr().err
    assert note.startswith("note: waiting for standard input")
    assert "</dev/null" in note


def test_what_comes_late_but_in_time_is_read_to_its_end(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once a byte has come, nobody gives up any more, however long the next one takes."""
    monkeypatch.setattr(stdin, "NOTE_SECONDS", 0.01)
    monkeypatch.setattr(stdin, "GIVE_UP_SECONDS", 0.3)
    pipe.later(0.1, b"la")

    pipe.later(0.5, b"te")
    pipe.later(0.6, b"")
    assert PromptSource(["x"], None).read() == "late\nx"
    assert capsys.readouterr().err.startswith("note: waiting")


@pytest.mark.parametrize(("words", "file"), [(["x", "-"], None), (["-", "x"], None), (["x"], Path("-"))])
def test_a_dash_waits_as_long_as_it_takes(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], file: Path | None
) -> None:
    monkeypatch.setattr(stdin, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(stdin, "GIVE_UP_SECONDS", 0.0)
    pipe.later(0.1, b"late")
    pipe.later(0.2, b"")
    assert PromptSource(words, file).read() == "late\nx"
    assert capsys.readouterr().err == ""


def test_lines_of_a_pipe_stand_before_those_of_an_argument(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.later(0.1, MARK + b"one\r\ntwo\n")
    pipe.later(0.2, b"")
    lines = [(line.number, line.text) for batch in line_batches(["three\nfour"], None, 1) for line in batch]
    assert lines == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]
    monkeypatch.setattr("sys.stdin", None)
    assert [len(batch) for batch in line_batches(["three\nfour"], None, 1)] == [2]


def test_lines_beside_a_silent_pipe(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "NOTE_SECONDS", 0.01)
    monkeypatch.setattr(stdin, "GIVE_UP_SECONDS", 0.02)
    with pytest.raises(UsageError, match="silent for"):
        next(line_batches(["x"], None, 1))
    pipe.close()


COMMANDS = {
    "generate": ["gpt2", "-n", "3", "--seed", "1", "--echo"],
    "explain": ["gpt2", "-n", "1", "--seed", "1"],
    "tokenize": ["gpt2"],
    "score": ["gpt2", "--tokens"],
    "attention": ["gpt2"],
    "fill": ["bert"],
    "embed": ["bert"],
    "translate": ["marian", "-n", "3"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loses_what_is_piped_in_late(
    pipe: Pipe, ask: Ask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    model, *options = COMMANDS[command]
    together = ask(command, "late\n[MASK]", "-m", golden(model), *options).out
    monkeypatch.setattr("sys.stdin", pipe.stdin)
    pipe.later(0.3, b"late\n")
    pipe.later(0.4, b"")
    assert run([command, "[MASK]", "-m", golden(model), *options]) == 0
    numbers = re.compile(r"-?\d+\.\d+")  # their last digits depend on how many lines come together
    assert numbers.sub("", capfd.readouterr().out) == numbers.sub("", together)


def test_a_slow_producer_through_real_processes() -> None:
    line = f"(sleep 2.5; echo late) | {shlex.join([TGEN, 'generate', 'x', '--echo', '-n', '1', '-q', '-m', golden('gpt2')])}"
    done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, timeout=TIMEOUT)
    assert done.returncode == 0
    assert done.stdout.startswith(b"late\nx")


def test_two_in_a_pipe() -> None:
    first, second = (
        shlex.join([TGEN, "generate", "-m", golden("gpt2"), "--seed", "1", *more]) for more in (["a"], ["b", "--echo", "-n", "1"])
    )
    done = subprocess.run(["sh", "-c", f"{first} -n 9 </dev/null | {second}"], env=environment(), capture_output=True, timeout=TIMEOUT)
    written = tgen("generate", "-m", golden("gpt2"), "--seed", "1", "a", "-n", "9").stdout
    assert done.stdout.startswith(written.removesuffix(b"\n") + b"\nb")
