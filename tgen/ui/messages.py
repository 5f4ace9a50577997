"""One-line messages on stderr: errors, warnings, notes, statistics.

This module does not import rich, which would delay an error.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tgen.errors import TgenError, shortened
from tgen.ui.harmless import harmless
from tgen.ui.terminal import Color, wants_color

_CODES = {"error": "1;31", "hint": "36", "warning": "33", "note": "2", "dim": "2"}


@dataclass(frozen=True, slots=True)
class _Manner:
    """The colour and quietness of messages. stderr belongs to the process, so all threads share one record, replaced as a whole."""

    color: Color = "auto"
    quiet: bool = False
    json_errors: bool = False


_manner = _Manner()


def configure(color: Color, quiet: bool) -> None:
    """Set colour and quietness for the process; --quiet never hides errors."""
    global _manner
    _manner = replace(_manner, color=color, quiet=quiet)


def write_errors_as_json(wanted: bool) -> None:
    """Let `report` write each error a second time, as JSON, or not."""
    global _manner
    _manner = replace(_manner, json_errors=wanted)


def is_quiet() -> bool:
    """Whether only errors are wanted."""
    return _manner.quiet


def report(error: TgenError) -> None:
    """Write an error as `error` does and, where --json was given, as one JSON object on a line of its own."""
    lines = _error_lines(error.message, error.hint)
    if _manner.json_errors:
        said = {"message": shortened(error.message), "hint": error.hint, "type": error.type, "exit_code": error.exit_code}
        lines.append(json.dumps({"error": said}))
    _write(*lines)


def error(message: str, hint: str | None = None) -> None:
    """Write `error: what` and `hint: what to do`."""
    _write(*_error_lines(message, hint))


def warning(message: str) -> None:
    """Write something that may not be what the user meant."""
    if not _manner.quiet:
        _write(_labelled("warning", message))


def warn_of_ignored(settings: Sequence[str]) -> None:
    """Warn of settings in a model's folder that change nothing."""
    warning(f"the model's folder sets options that tgen does not implement: {', '.join(settings)}; the text may differ")


def note(message: str, *, even_if_quiet: bool = False) -> None:
    """Write something worth knowing."""
    if even_if_quiet or not _manner.quiet:
        _write(_labelled("note", message))


def dim(line: str) -> None:
    """Write a line of statistics, without a label."""
    if not _manner.quiet:
        _write(_styled(harmless(line), "dim"))


def _error_lines(message: str, hint: str | None) -> list[str]:
    return [_labelled("error", message), *([_labelled("hint", hint)] if hint else [])]


def _labelled(kind: Literal["error", "hint", "warning", "note"], message: str) -> str:
    """A labelled message on one line: a line break in a name or value from outside must not start a false message."""
    return f"{_styled(f'{kind}:', kind)} {' '.join(harmless(shortened(message)).splitlines())}"


def _styled(text: str, kind: str) -> str:
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if wants_color(sys.stderr, _manner.color) else text


def _write(*lines: str) -> None:
    """Write lines in one piece, so that those of another thread come before or after them."""
    # Names of files and arguments that are not UTF-8 hold lone surrogates.
    data = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
    # A closed or full stderr must not hide the result on stdout.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
