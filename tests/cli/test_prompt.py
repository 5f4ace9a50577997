"""Where a prompt comes from, and what of a file or of standard input belongs to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tgen.cli.prompt import PromptSource
from tgen.errors import UsageError


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
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"a\r", "a\r"), (b" a ", " a "), (b"\n", ""), ("é\0".encode(), "é\0")],
    indirect=["path"],
)
def test_all_but_the_newline_that_ends_the_last_line(path: Path, source: str, expected: str) -> None:
    argument, file = {"standard input": (None, None), "dash": ("-", None), "file": (None, path), "dash as file": (None, Path("-"))}[source]
    prompt = PromptSource(argument, file)
    if source == "standard input" and not expected:
        with pytest.raises(UsageError, match="standard input is empty"):
            prompt.read()
    else:
        assert prompt.read() == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"one\n", "one\ntwo"), (b"one", "one\ntwo"), (b"one\n\n", "one\n\ntwo"), (b"", "two"), (b"\n", "two")],
    indirect=["path"],
)
@pytest.mark.usefixtures("path")
def test_standard_input_and_argument_are_joined(expected: str) -> None:
    assert PromptSource("two", None).read() == expected


@pytest.mark.parametrize("path", [b"ab\xff"], indirect=True)
def test_what_is_not_utf8_is_refused_with_its_place(path: Path) -> None:
    with pytest.raises(UsageError, match="standard input is not UTF-8 at byte 2"):
        PromptSource(None, None).read()
    with pytest.raises(UsageError, match="text is not UTF-8 at byte 2"):
        PromptSource(None, path)


def test_a_closed_standard_input_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert PromptSource("x", None).read() == "x"
    with pytest.raises(UsageError, match="there is no text"):
        PromptSource(None, None)


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with open(slave) as terminal, open(master):
        monkeypatch.setattr("sys.stdin", terminal)
        assert PromptSource("x", None).read() == "x"
        with pytest.raises(UsageError, match="there is no text"):
            PromptSource(None, None)
