"""Lines in: from an argument, a file or standard input, as they come. Knows no model.

A thread reads ahead, so that a slow writer gets each answer at once and a fast one gets batches.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tgen.errors import UsageError
from tgen.ui.terminal import is_terminal


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline, and its number, from 1."""

    number: int
    text: str


def line_batches(argument: str | None, file: Path | None, size: int) -> Iterator[list[Line]]:
    """Lines in order: as many as are there, at most `size` at a time, waiting only while there is none.

    Raises UsageError at once where there is nothing to read, and for a line that is not UTF-8 after those before it.
    """
    if argument is not None and file is not None:
        raise UsageError("give the text as an argument or as --file, not both", "leave one out")
    standard = argument == "-" or file == Path("-")
    if argument is not None and not standard:
        return iter([[_line(text, number) for number, text in enumerate(os.fsencode(argument).split(b"\n"), start=1)]])
    if file is not None and not standard:
        return _drained(_opened(file), size)
    if sys.stdin is None or (not standard and is_terminal(sys.stdin)):
        raise UsageError("there is no text", "give one as an argument, pipe one in, or -f FILE")
    # A stream of its own: the thread may still wait for it when Python puts sys.stdin away.
    return _drained(open(os.dup(sys.stdin.fileno()), "rb"), size)


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "check the path") from error


def _drained(stream: IO[bytes], size: int) -> Iterator[list[Line]]:
    waiting: queue.Queue[Line | UsageError | None] = queue.Queue(maxsize=4 * size)
    threading.Thread(target=_read_ahead, args=(stream, waiting), daemon=True).start()
    while True:
        batch: list[Line] = []
        while len(batch) < size and (not batch or not waiting.empty()):
            found = waiting.get()
            if isinstance(found, Line):
                batch.append(found)
                continue
            if batch:
                yield batch
            if found is not None:
                raise found
            return
        yield batch


def _read_ahead(stream: IO[bytes], waiting: queue.Queue[Line | UsageError | None]) -> None:
    """Put every line, and at the end None or what went wrong."""
    end = None
    try:
        with stream:
            for number, line in enumerate(stream, start=1):
                waiting.put(_line(line, number))
    except UsageError as error:
        end = error
    except OSError as error:
        end = UsageError(f"cannot read the input: {error.strerror}", "check where it comes from")
    waiting.put(end)


def _line(line: bytes, number: int) -> Line:
    try:
        return Line(number, line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"line {number} is not UTF-8 at byte {error.start}", "convert it, for example with iconv -t UTF-8") from error
