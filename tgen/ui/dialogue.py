"""What a person or a script says, one message after another: lines, longer messages, line editing and its history."""

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
    """A message; a `quoted` one is never a command."""

    text: str
    quoted: bool = False


class Lines(Protocol):
    """Where lines come from. Raises EOFError after the last one, UsageError for one that is no text."""

    def line(self, prompt: str) -> str: ...


class PipedLines:
    """Standard input that is a pipe or a file: lines without prompts."""

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
    """A keyboard, with line editing and history where Python has readline and both sides are a terminal."""

    def __init__(self, history: Path | None) -> None:
        """`history` is the file that earlier lines are in, if they are to be kept."""
        self._history = history
        self._edits = is_terminal(sys.stdout)
        if self._edits:
            with contextlib.suppress(ImportError):
                import readline

                readline.set_history_length(HISTORY_LINES)
                # Without this, which Python turns off and libedit has not, each line of a pasted text would be a message.
                if os.environ.get("TERM", "dumb") != "dumb" and "libedit" not in (readline.__doc__ or ""):
                    readline.parse_and_bind("set enable-bracketed-paste on")
                if history is not None:
                    with contextlib.suppress(OSError):  # there is none, or one that another library wrote
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
        """After a KeyboardInterrupt: whether something had been typed already."""
        readline = sys.modules.get("readline")
        return self._edits and readline is not None and bool(readline.get_line_buffer())

    def close(self) -> None:
        """Keep the history."""
        if self._history is None or not self._edits or "readline" not in sys.modules:
            return
        import readline

        with contextlib.suppress(OSError):
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._history, readline.write_history_file, shared=True)


def read_message(lines: Lines) -> Said:
    """The next message: a line, lines that end in a backslash and the one after them, or what stands between triple quotes.

    Raises EOFError when there are no more, and what the lines raise.
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
    """Where lines are kept between conversations, as the XDG directories have it; None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return Path(state) / "tgen" / "chat_history" if os.path.isabs(state) else None
