"""Reads the messages of a person or a script; a person has line editing and a history."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tgen.errors import UsageError
from tgen.files import decode_text, write_atomically
from tgen.ui.terminal import is_terminal

HISTORY_LINES = 1000
QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Said:
    """A message. One that is `quoted` is never a command."""

    text: str
    quoted: bool = False


class Lines(Protocol):
    """A source of lines. It raises EOFError after the last one, and UsageError for one that is not UTF-8."""

    def line(self, prompt: str) -> str: ...


class PipedLines:
    """Reads lines from a pipe or a file, without prompts."""

    def __init__(self) -> None:
        self._number = 0

    def line(self, prompt: str) -> str:  # noqa: ARG002
        """The next line."""
        data = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        self._number += 1
        if not data:
            raise EOFError
        return decode_text(data.removesuffix(b"\n").removesuffix(b"\r"), f"line {self._number}", start=self._number == 1)


class TypedLines:
    """Reads lines from a keyboard, with line editing and history where Python has readline and stdout is a terminal too."""

    def __init__(self, history: Path | None) -> None:
        """`history` is the file that keeps lines for the next time; None keeps none."""
        self._history = history
        self._edits = is_terminal(sys.stdout)
        if self._edits:
            with contextlib.suppress(ImportError):
                import readline

                readline.set_history_length(HISTORY_LINES)
                # Otherwise each line of a pasted text would be a message. Python turns this off, and libedit does not have it.
                if os.environ.get("TERM", "dumb") != "dumb" and "libedit" not in (readline.__doc__ or ""):
                    readline.parse_and_bind("set enable-bracketed-paste on")
                if history is not None:
                    with contextlib.suppress(OSError):  # the file is missing, or another library wrote it
                        readline.read_history_file(history)

    def line(self, prompt: str) -> str:
        """The next line. Raises KeyboardInterrupt."""
        try:
            if self._edits:
                text = input(prompt)
            else:  # `input` would write the prompt into the pipe or file that stdout is
                sys.stderr.write(prompt)
                sys.stderr.flush()
                text = sys.stdin.readline()
                if not text:
                    raise EOFError
                text = text.removesuffix("\n")
            text.encode("utf-8")
        except UnicodeError as error:
            raise UsageError("this line is not UTF-8", "check the terminal's encoding") from error
        return text

    def pending(self) -> bool:
        """Whether a person had typed something before a KeyboardInterrupt."""
        readline = sys.modules.get("readline")
        return self._edits and readline is not None and bool(readline.get_line_buffer())

    def close(self) -> None:
        """Write the history."""
        if self._history is None or not self._edits or "readline" not in sys.modules:
            return
        import readline

        with contextlib.suppress(OSError):
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._history, readline.write_history_file, shared=True)


def read_message(lines: Lines) -> Said:
    """The next message: one line, several where each but the last ends in a backslash, or the text between triple quotes.

    Raises EOFError after the last message, and what `lines` raises.
    """
    text = lines.line("> ")
    if text.startswith(QUOTES):
        parts = [text.removeprefix(QUOTES)]
        with contextlib.suppress(EOFError):
            while not parts[-1].endswith(QUOTES):
                parts.append(lines.line(". "))
        return Said("\n".join(parts).removesuffix(QUOTES).strip("\n"), quoted=True)
    with contextlib.suppress(EOFError):
        while text.endswith("\\"):
            text = text[:-1] + "\n"
            text += lines.line(". ")
    return Said(text)


def history_file() -> Path | None:
    """The file that keeps lines between conversations, where XDG has such files; None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return Path(state) / "tgen" / "chat_history" if os.path.isabs(state) else None
