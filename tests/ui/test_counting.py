"""Progress goes to a terminal only, and never between the lines of the text."""

from __future__ import annotations

import contextlib
import os

import pytest

from tgen.ui import messages
from tgen.ui.counting import counting


def shown(monkeypatch: pytest.MonkeyPatch, total: int | None, writing: bool, *streams: str) -> bytes:
    """What a terminal shows that is these streams, while three of something are counted."""
    master, slave = os.openpty()
    with open(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        for name in streams:
            patch.setattr(f"sys.{name}", terminal)
        with counting("lines", total, writing=writing) as bar:
            bar.add(3)
    found = b""
    with open(master, "rb", buffering=0) as side, contextlib.suppress(OSError):  # what Linux says when the other side is closed
        while block := side.read(65536):
            found += block
    return found


@pytest.mark.parametrize("writing", [False, True])
@pytest.mark.parametrize("total", [4, None])
def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, total: int | None, writing: bool) -> None:
    assert f"3/{total or '?'}".encode() in shown(monkeypatch, total, writing, "stderr")


def test_nothing_between_the_lines_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"3/?" in shown(monkeypatch, None, False, "stderr", "stdout")
    assert shown(monkeypatch, None, True, "stderr", "stdout") == b""


def test_nothing_under_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(messages, "is_quiet", lambda: True)
        assert shown(monkeypatch, 4, False, "stderr") == b""


def test_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("lines", 4) as bar:
        bar.add(3)
    assert capsys.readouterr() == ("", "")
