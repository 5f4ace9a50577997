"""The bar that a long prompt has while it is read: on a terminal, if it takes its time, and gone before the text."""

from __future__ import annotations

import contextlib
import os

import pytest

from tgen.events import Piece, Reading, Started
from tgen.ui import messages, report
from tgen.ui.report import Report


def shown(monkeypatch: pytest.MonkeyPatch, patience: float, quiet: bool = False) -> str:
    """What a terminal shows that is stderr, and where the text would be."""
    master, slave = os.openpty()
    with open(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.setattr("sys.stderr", terminal)
        patch.setattr(report, "PATIENCE_SECONDS", patience)
        messages.configure("auto", quiet)
        watching = Report()
        watching.add(Reading(256, 700))
        watching.add(Reading(512, 700))
        watching.add(Started(700, 10, 1))
        terminal.write("TEXT")
        watching.add(Piece(0, "a"))
        watching.close()
        messages.configure("auto", quiet=False)
    found = b""
    with open(master, "rb", buffering=0) as side, contextlib.suppress(OSError):  # what Linux says when the other side is closed
        while block := side.read(65536):
            found += block
    return found.decode()


def test_a_bar_while_a_long_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before, _, after = shown(monkeypatch, -1.0).partition("TEXT")
    assert "reading" in before
    assert "512/700" in before
    assert before.endswith("\x1b[2K")  # its line is empty again
    assert not after


def test_none_where_it_takes_no_time_or_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 60.0) == "TEXT"
    assert shown(monkeypatch, -1.0, quiet=True) == "TEXT"
