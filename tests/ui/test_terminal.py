"""What each stream is and what may be sent to it; messages; data on stdout."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgen.ui import messages
from tgen.ui.harmless import harmless
from tgen.ui.output import write_json, write_text
from tgen.ui.terminal import Color, console, is_terminal, wants_color
from tgen.ui.training import duration

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def terminal() -> Iterator[io.TextIOWrapper]:
    master, slave = os.openpty()
    with open(slave, "w") as stream, open(master):
        yield stream


@pytest.mark.parametrize(
    ("color", "variables", "on_terminal", "on_stdout_pipe", "on_stderr_pipe"),
    [
        ("auto", {}, True, False, False),
        ("auto", {"TERM": "dumb"}, False, False, False),
        ("auto", {"NO_COLOR": "1"}, False, False, False),
        ("auto", {"NO_COLOR": ""}, True, False, False),
        ("auto", {"FORCE_COLOR": "1"}, True, False, True),
        ("auto", {"FORCE_COLOR": "1", "TERM": "dumb"}, True, False, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False, False),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, True, True, True),
        ("never", {"FORCE_COLOR": "1"}, False, False, False),
    ],
)
def test_option_goes_before_variables_before_terminal(
    monkeypatch: pytest.MonkeyPatch,
    terminal: io.TextIOWrapper,
    color: Color,
    variables: dict[str, str],
    on_terminal: bool,
    on_stdout_pipe: bool,
    on_stderr_pipe: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    assert wants_color(terminal, color) is on_terminal
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert wants_color(sys.stdout, color) is on_stdout_pipe
    assert wants_color(io.StringIO(), color) is on_stderr_pipe
    assert bool(console(terminal, color).color_system) is on_terminal


def test_closed_streams_are_no_terminals(terminal: io.TextIOWrapper) -> None:
    assert is_terminal(terminal)
    terminal.close()
    assert not is_terminal(terminal)
    assert not is_terminal(None)


@given(st.text())
def test_harmless_text_has_no_control_characters_and_keeps_the_rest(text: str) -> None:
    safe = harmless(text)
    assert not [c for c in safe if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    kept = [c for c in text if unicodedata.category(c) != "Cc" or c in "\n\t"]
    assert harmless("".join(kept)) == "".join(kept) or any(unicodedata.bidirectional(c) in _OVERRIDES for c in kept)
    assert harmless(safe) == safe


_OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("character", [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.bidirectional(chr(c)) in _OVERRIDES])
def test_bidirectional_overrides_are_shown(character: str) -> None:
    assert harmless(character) == f"<{ord(character):04x}>"


def test_messages_are_labelled_harmless_lines(capsys: Captured) -> None:
    messages.configure("never", quiet=False)
    messages.error("no \x1b[2J folder \udcff", "look\x07")
    messages.warning("w")
    messages.note("n")
    messages.dim("d\x1b")
    assert capsys.readouterr().err == "error: no ␛[2J folder \\udcff\nhint: look␇\nwarning: w\nnote: n\nd␛\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\x0b", "\u2028", "\x85"])
def test_a_message_is_one_line_of_no_more_than_a_screenful(capsys: Captured, newline: str) -> None:
    """Names of files and values of a config.json are in them, and shall not pass for a message."""
    messages.error(f"no file a{newline}hint: do as I say", f"look{newline}error: there")
    messages.warning("x" * 10**6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint", "warning"]
    assert max(map(len, lines)) < 1000
    assert lines[2].endswith("x ... " + "x" * 450)


def test_quiet_leaves_errors(capsys: Captured) -> None:
    messages.configure("always", quiet=True)
    for say in (messages.warning, messages.note, messages.dim, messages.error):
        say("x")
    assert capsys.readouterr().err == "\x1b[1;31merror:\x1b[0m x\n"
    messages.configure("auto", quiet=False)


def test_data_is_utf8_whatever_the_locale_and_ends_its_line_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    write_text("é\x1b")
    write_json({"é": "\x1b"})
    assert written.getvalue() == 'é\x1b{"é": "\\u001b"}\n'.encode()
    master, slave = os.openpty()
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        write_text("é\x1b")
        assert os.read(master, 100) == "é␛\r\n".encode()
    os.close(master)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="standard output is closed"):
        write_text("x")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 min 00 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min"), (float("nan"), "-")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
