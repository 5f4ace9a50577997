"""One-line messages on stderr: errors, warnings, notes, statistics. Knows no command.

Written without rich, so that an error is shown in the time it takes to find it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Literal

from tgen.errors import shortened
from tgen.ui.harmless import harmless
from tgen.ui.terminal import Color, wants_color

_CODES = {"error": "1;31", "hint": "36", "warning": "33", "note": "2", "dim": "2"}
_settings: dict[str, Color | bool] = {"color": "auto", "quiet": False}


def configure(color: Color, quiet: bool) -> None:
    """How the process speaks from now on; errors are never quiet."""
    _settings.update(color=color, quiet=quiet)


def is_quiet() -> bool:
    """Whether only errors are wanted."""
    return bool(_settings["quiet"])


def error(message: str, hint: str | None = None) -> None:
    """`error: what` and `hint: what to do`."""
    _say("error", message)
    if hint:
        _say("hint", hint)


def warning(message: str) -> None:
    """Something that may not be what was meant."""
    if not _settings["quiet"]:
        _say("warning", message)


def note(message: str, *, even_if_quiet: bool = False) -> None:
    """Something worth knowing."""
    if even_if_quiet or not _settings["quiet"]:
        _say("note", message)


def dim(line: str) -> None:
    """A line of statistics, without a label."""
    if not _settings["quiet"]:
        _write(_styled(harmless(line), "dim"))


def _say(kind: Literal["error", "hint", "warning", "note"], message: str) -> None:
    """One line, whatever names and values from outside are in the message: none of them shall pass for a message of its own."""
    _write(f"{_styled(f'{kind}:', kind)} {' '.join(harmless(shortened(message)).splitlines())}")


def _styled(text: str, kind: str) -> str:
    color: Color = _settings["color"]  # type: ignore[assignment]
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if wants_color(sys.stderr, color) else text


def _write(line: str) -> None:
    # A closed or full stderr must not hide the result on stdout.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Names of files and arguments that are not UTF-8 hold lone surrogates.
        sys.stderr.buffer.write(f"{line}\n".encode(errors="backslashreplace"))
        sys.stderr.flush()
