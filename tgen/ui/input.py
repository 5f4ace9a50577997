"""Where a command's text comes from: an argument, a file, standard input, or standard input beside an argument.

Text that is piped in is never lost, and tgen says so when it waits for a silent pipe.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tgen.errors import UsageError
from tgen.files import BYTE_ORDER_MARK
from tgen.ui import messages
from tgen.ui.terminal import is_terminal

STDIN = "-"
# How long standard input beside an argument may be silent until tgen says that it waits, and until it gives up.
NOTE_SECONDS, GIVE_UP_SECONDS = 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Given:
    """The argument's text, the file, and whether standard input was asked for by name. At most one of text and file is set."""

    text: str | None
    file: Path | None
    stdin: bool


def read_arguments(words: Sequence[str] | None, file: Path | None) -> Given:
    """Read a command's arguments and its --file. `-` asks for standard input, at any place and as --file too.

    Raises UsageError for more than one text, and where there is nothing to read.
    """
    texts = [word for word in words or () if word != STDIN]
    named = len(texts) < len(words or ()) or file == Path(STDIN)
    file = None if file == Path(STDIN) else file
    if len(texts) > 1:
        extra = " ".join(texts[1:])
        raise UsageError(f"unexpected extra argument ({extra})", "a text of several words needs quotes")
    if file is not None and (texts or named):
        raise UsageError("give the text as an argument or as --file, not both", "leave one out")
    if not texts and file is None and not named and (sys.stdin is None or is_terminal(sys.stdin)):
        raise UsageError("there is no text to work on", 'give some: tgen generate "Once upon a time"; or pipe it in; or -f FILE')
    return Given(texts[0].removeprefix(BYTE_ORDER_MARK) if texts else None, file, named)


def has_companion(given: Given) -> bool:
    """Whether to read standard input beside an argument. Returns when its first byte, or its end, has come.

    A pipe that stays silent gets a note, and after a while UsageError is raised; but if standard input was asked for by name,
    the wait has no limit. A terminal is not read beside an argument.
    """
    if given.stdin:
        return True
    if sys.stdin is None or is_terminal(sys.stdin):
        return False
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):  # standard input is closed, or the program that calls tgen has replaced it
        return False
    if not _ready(number, NOTE_SECONDS):
        way_out = "</dev/null goes on without it, - beside the text waits as long as it takes"
        messages.note(f"waiting for standard input, which is open but silent; {way_out}", even_if_quiet=True)
        if not _ready(number, GIVE_UP_SECONDS - NOTE_SECONDS):
            raise UsageError(f"standard input is open, but was silent for {GIVE_UP_SECONDS:g} seconds", way_out)
    return True


def _ready(number: int, seconds: float) -> bool:
    """Whether a read would return at once. Where the system cannot tell, the answer is yes: waiting is better than losing text."""
    try:
        return bool(select.select([number], [], [], seconds)[0])
    except (OSError, ValueError):
        return True


def read_stdin() -> bytes:
    """All of standard input; nothing if it is closed. Raises UsageError."""
    if sys.stdin is None:
        return b""
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(
            f"cannot read standard input: {error.strerror or error}", "check where it comes from; </dev/null stands for an empty one"
        ) from error


def read_file(path: Path) -> bytes:
    """All of a file. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
