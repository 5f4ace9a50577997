"""Messages that come as lines: from a pipe or a file, or from a terminal that can edit nothing."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Protocol, TextIO

from tgen.errors import UsageError
from tgen.files import decode_text

QUOTES = '"""'
PROMPT, CONTINUED = "> ", ". "


@dataclass(frozen=True, slots=True)
class Said:
    """A message. One that is `quoted` is never a command."""

    text: str
    quoted: bool = False


class Listener(Protocol):
    """A source of messages; `typed` says whether a person types them, who may give commands."""

    typed: bool

    def read(self) -> Said:
        """The next message. Raises EOFError after the last one, UsageError for one that is not UTF-8, KeyboardInterrupt."""

    def pending(self) -> bool:
        """Whether a person had typed something before a KeyboardInterrupt."""

    def offer(self, text: str) -> None:
        """Put a text on the next line, to be edited there. Raises UsageError where nothing can be edited."""


class PipedLines:
    """Reads messages from a pipe or a file, without prompts."""

    typed = False

    def __init__(self) -> None:
        self._number = 0

    def read(self) -> Said:
        """The next message."""
        return read_message(self)

    def line(self, prompt: str) -> str:  # noqa: ARG002
        """The next line."""
        data = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        self._number += 1
        if not data:
            raise EOFError
        return decode_text(data.removesuffix(b"\n").removesuffix(b"\r"), f"line {self._number}", start=self._number == 1)

    def pending(self) -> bool:
        """Nobody types here."""
        return False

    def offer(self, text: str) -> None:
        """Nobody edits here."""
        raise NotImplementedError


class PlainLines:
    """Reads messages from a terminal that cannot move its cursor (TERM=dumb), line by line as the system edits them."""

    typed = True

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def read(self) -> Said:
        """The next message."""
        try:
            return read_message(self)
        except (EOFError, KeyboardInterrupt):
            _show("\n")  # what follows must not stand behind the prompt
            raise

    def line(self, prompt: str) -> str:
        """The next line."""
        _show(prompt)
        data = self._terminal.buffer.readline()
        if not data:
            raise EOFError
        try:
            return data.removesuffix(b"\n").decode("utf-8")
        except UnicodeError as error:
            raise not_utf8() from error

    def pending(self) -> bool:
        """Never: the system edits the line, and does not tell what is on it."""
        return False

    def offer(self, text: str) -> None:  # noqa: ARG002
        """Raise UsageError, because the system edits the line."""
        raise UsageError("this terminal cannot edit a line", "/edit TEXT sends TEXT in the place of your last message")


def not_utf8() -> UsageError:
    """The error for a typed line that is no text."""
    return UsageError("this line is not UTF-8", "check the terminal's encoding")


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class Lines(Protocol):
    """A source of lines. It raises EOFError after the last one, and UsageError for one that is not UTF-8."""

    def line(self, prompt: str) -> str: ...


def read_message(lines: Lines) -> Said:
    """The next message: one line, several where each but the last ends in a backslash, or the text between triple quotes.

    Raises EOFError after the last message, and what `lines` raises.
    """
    text = lines.line(PROMPT)
    if text.startswith(QUOTES):
        parts = [text.removeprefix(QUOTES)]
        with contextlib.suppress(EOFError):
            while not parts[-1].endswith(QUOTES):
                parts.append(lines.line(CONTINUED))
        return unquoted("\n".join(parts))
    with contextlib.suppress(EOFError):
        while text.endswith("\\"):
            text = text[:-1] + "\n"
            text += lines.line(CONTINUED)
    return Said(text)


def unquoted(text: str) -> Said:
    """The message behind opening triple quotes."""
    return Said(text.removesuffix(QUOTES).strip("\n"), quoted=True)
