"""Where a prompt comes from: the argument, a file, standard input, or both. Knows no model."""

from __future__ import annotations

import select
import sys
from dataclasses import dataclass
from pathlib import Path

from tgen.errors import UsageError
from tgen.ui import messages
from tgen.ui.terminal import is_terminal

# How long an argument's companion on standard input may be silent. The model has been loading before this starts to count.
PATIENCE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class PromptSource:
    """What the command line says about the prompt, before anything is read."""

    argument: str | None
    file: Path | None

    def __post_init__(self) -> None:
        if self.file is not None and self.argument is not None:
            raise UsageError("give the prompt as an argument or as --file, not both")
        if self.file is not None and not self.file.exists():
            raise UsageError(f"no such file: {self.file}")
        if self.argument is None and self.file is None and (sys.stdin is None or is_terminal(sys.stdin)):
            raise UsageError("there is no prompt", 'give one: tgen generate "Once upon a time"; or pipe one in; or -f FILE')

    def read(self) -> str:
        """The prompt. Blocks until standard input ends where it is the prompt; an argument's silent companion is not waited for."""
        if self.file is not None:
            return _file_text(self.file)
        if self.argument is None or self.argument == "-":
            text = _stdin_text()
            if not text and self.argument is None:
                raise UsageError("standard input is empty, so there is no prompt", 'give one: tgen generate "Once upon a time"')
            return text
        return _joined(_companion(), _valid(self.argument))


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


def _joined(before: str, argument: str) -> str:
    if not before:
        return argument
    return f"{before}{argument}" if before.endswith("\n") else f"{before}\n{argument}"


def _stdin_text() -> str:
    return "" if sys.stdin is None else _decode(sys.stdin.buffer.read(), "standard input")


def _file_text(path: Path) -> str:
    try:
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 at byte {error.start}", "convert it, for example with iconv -t UTF-8") from error


def _valid(argument: str) -> str:
    """Arguments that are not UTF-8 reach Python as lone surrogates."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("the prompt argument is not UTF-8", "check the terminal's encoding") from error
    return argument
