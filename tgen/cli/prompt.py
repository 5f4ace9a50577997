"""Where a prompt comes from: the argument, a file, standard input, or both. Knows no model."""

from __future__ import annotations

import select
import sys
from pathlib import Path

from tgen.errors import UsageError
from tgen.ui import messages
from tgen.ui.terminal import is_terminal

# How long an argument's companion on standard input may be silent. The model has been loading before this starts to count.
PATIENCE_SECONDS = 0.1


class PromptSource:
    """What the command line says about the prompt. Standard input is left for `read`, so that a model can load meanwhile."""

    def __init__(self, argument: str | None, file: Path | None) -> None:
        """Reads the file. Raises UsageError for what is no text, and if there is nothing to read."""
        if file is not None and argument is not None:
            raise UsageError("give the text as an argument or as --file, not both")
        self._argument = "-" if file == Path("-") else argument
        self._text = None if file is None or self._argument == "-" else _file_text(file)
        check_encoding("the argument", self._argument or "")
        if self._argument is None and file is None and (sys.stdin is None or is_terminal(sys.stdin)):
            raise UsageError("there is no text to work on", 'give some: tgen generate "Once upon a time"; or pipe it in; or -f FILE')

    def read(self) -> str:
        """The prompt. Blocks until standard input ends where it is the prompt; an argument's silent companion is not waited for."""
        if self._text is not None:
            return self._text
        if self._argument is not None and self._argument != "-":
            return "\n".join(text for text in (_companion(), self._argument) if text)
        text = _stdin_text()
        if not text and self._argument is None:
            raise UsageError("standard input is empty", "give a text as an argument, with --file or through a pipe")
        return text


def _companion() -> str:
    """Standard input beside an argument: read if anything is there."""
    if sys.stdin is None or is_terminal(sys.stdin):
        return ""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], PATIENCE_SECONDS)
    except (OSError, ValueError):
        return ""
    if not ready:
        messages.note("standard input is open but silent, so only the argument is used (</dev/null says so at once)")
        return ""
    return _stdin_text()


def _stdin_text() -> str:
    return "" if sys.stdin is None else _decode(sys.stdin.buffer.read(), "standard input")


def _file_text(path: Path) -> str:
    try:
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _decode(data: bytes, name: str) -> str:
    """The text of a file or stream; the newline that ends its last line, which `echo` and editors add, is not part of it."""
    try:
        return data.removesuffix(b"\r\n" if data.endswith(b"\r\n") else b"\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 at byte {error.start}", "convert it, for example with iconv -t UTF-8") from error


def check_encoding(name: str, text: str) -> None:
    """Raise UsageError for an argument that was not UTF-8: it reaches Python with lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is not UTF-8", "check the terminal's encoding") from error
