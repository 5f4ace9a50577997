"""Streams of text: exact bytes into a pipe, the same characters made harmless on a terminal, samples one after another."""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Callable, Sequence

import pytest

from tgen.events import Event, Finished, Piece, Started, Token, TokenScore
from tgen.ui.harmless import harmless
from tgen.ui.stream import HEAT, SampleStream, heat, open_stream

# What a markup language, an emoji table, a wrapper or a formatter would alter.
PIECES = [
    "a", " ", "\t", "x\ty", "\n", "\n\n", "  ", "[/INST]", "[bold]b[/bold]", ":smile:", "https://x.y/?a=1 ", "  end  \n  lead",
    "日本語" * 40, "word " * 60, "e\u0301", "👩‍👩‍👧", "\\", "'1' 3.14 None",
]  # fmt: skip


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """What reaches a terminal that is stdout while something is done."""

    def shown(work: Callable[[], None]) -> str:
        master, slave = os.openpty()
        with open(slave, "w", encoding="ascii") as stdout:  # as with PYTHONIOENCODING=ascii
            monkeypatch.setattr(sys, "stdout", stdout)
            work()
        data = b""
        try:
            while block := os.read(master, 65536):
                data += block
        except OSError:
            pass
        os.close(master)
        return data.decode().replace("\r\n", "\n")

    for variable in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "20")
    return shown


def write_all(pieces: Sequence[str], raw: bool = False) -> Callable[[], None]:
    def work() -> None:
        stream = open_stream("auto", echo=False, raw=raw, show_probs=False)
        for piece in pieces:
            stream.write(piece)
        stream.close()

    return work


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_every_character_as_it_is(terminal: Callable[[Callable[[], None]], str]) -> None:
    assert terminal(write_all(PIECES)) == "".join(PIECES) + "\n"


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_alone_is_not_altered(terminal: Callable[[Callable[[], None]], str], piece: str) -> None:
    assert terminal(write_all([piece])) == piece + ("" if piece.endswith("\n") else "\n")


@pytest.mark.parametrize("attack", ["\x1b]52;c;QUJD\x07", "\x1b[2J", "\x9b2J", "\x08", "\r", "\x00", "\x7f", "\u202eabc\u2066"])
def test_control_characters_are_harmless_unless_raw(terminal: Callable[[Callable[[], None]], str], attack: str) -> None:
    shown = terminal(write_all(["a", attack, "b"]))
    assert shown == harmless(f"a{attack}b") + "\n"
    assert not set(shown) & set("\x1b\x9b\x08\r\x00\x7f\u202e\u2066")
    assert terminal(write_all(["a", attack, "b"], raw=True)) == f"a{attack}b\n"


def token(text: str, probability: float) -> Token:
    return Token(TokenScore(1, text, math.log(probability)))


def test_probabilities_colour_tokens_and_alter_nothing(terminal: Callable[[Callable[[], None]], str]) -> None:
    def work() -> None:
        stream = open_stream("auto", echo=False, raw=False, show_probs=True)
        stream.prompt("Once [/INST]")
        stream.write(" up\ton", [token(" up", 0.95), token("\ton", 0.05)])
        stream.write("é", [token("�", 0.5), token("�", 0.05)])  # one character of two tokens
        stream.close()

    shown = terminal(work)
    assert plain(shown) == "Once [/INST] up\toné\n"
    assert shown == "\x1b[2mOnce [/INST]\x1b[0m\x1b[32m up\x1b[0m\x1b[31m\ton\x1b[0m\x1b[31mé\x1b[0m\n"


@pytest.mark.parametrize(("probability", "color"), [(0.0, "red"), (0.1, "red"), (0.11, HEAT[1][1]), (0.95, "green"), (1.0, "green")])
def test_heat(probability: float, color: str) -> None:
    assert heat(probability) == color
    assert heat(1.0 + 1e-12) == "green"  # a sum of probabilities may be rounded up


def test_a_pipe_gets_each_piece_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, "rb", buffering=0) as end, open(writer, "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        stream = open_stream("auto", echo=False, raw=False, show_probs=False)
        for piece in PIECES:
            stream.write(piece)
            assert end.read() == piece.encode()
        stream.close()
        assert end.read() is None


SAMPLES: list[Event] = [
    Started(1, 9, 0),
    Piece(0, "a"),
    Piece(1, "1"),
    Piece(2, "x"),
    Finished(1, "stop", 1, 0, 0),
    Piece(0, "b"),
    Piece(2, "y"),
    Finished(0, "length", 2, 0, 0),
    Piece(2, "z"),
    Finished(2, "length", 3, 0, 0),
]


@pytest.mark.parametrize(("echo", "expected"), [(False, b"ab\n1\nxyz"), (True, b"Pab\n1\nxyz")])
def test_samples_come_one_after_another(monkeypatch: pytest.MonkeyPatch, echo: bool, expected: bytes) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    sink = SampleStream(open_stream("auto", echo=echo, raw=False, show_probs=False), "P", 3)
    for event in SAMPLES:
        sink.add(event)
    sink.close()
    assert written.getvalue() == expected


def test_samples_on_a_terminal_have_a_line_between_them(terminal: Callable[[Callable[[], None]], str]) -> None:
    def work() -> None:
        sink = SampleStream(open_stream("auto", echo=False, raw=False, show_probs=False), "P", 3)
        for event in SAMPLES:
            sink.add(event)
        sink.close()

    assert plain(terminal(work)) == "Pab\n───\n1\n───\nxyz\n"


def test_an_error_starts_on_a_line_of_its_own(terminal: Callable[[Callable[[], None]], str]) -> None:
    def work() -> None:
        sink = SampleStream(open_stream("auto", echo=False, raw=False, show_probs=False), "P", 1)
        sink.add(Piece(0, "half a li"))
        sink.abandon()

    assert terminal(work) == "half a li\n"
