"""Reads lines from an argument, files or standard input, as they come.

A thread reads ahead: lines that come one by one are answered one by one, and lines that come fast are answered in batches.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

from tgen.errors import TgenError, UsageError
from tgen.files import decode_text
from tgen.ui.input import Given, has_companion, read_arguments
from tgen.ui.terminal import is_terminal

T = TypeVar("T")
MOST_BYTES = 16 * 2**20  # of a line
AHEAD_BYTES = 4 * MOST_BYTES  # of lines that wait in the queue
PATIENCE_SECONDS = 0.1  # from one check of `cancelled` to the next


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline, and its number, from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th line, from line `index` on: the share of one of `count` machines."""

    index: int = 1
    count: int = 1

    def __contains__(self, number: int) -> bool:
        return (number - self.index) % self.count == 0


EVERY = Shard()


def read_shard(text: str) -> Shard:
    """The shard that I/N names. Raises UsageError."""
    index, _, count = text.partition("/")
    if index.isascii() and index.isdecimal() and count.isascii() and count.isdecimal() and len(text) < 40 and 1 <= int(index) <= int(count):
        return Shard(int(index), int(count))
    raise UsageError(f"--shard must be I/N with I from 1 to N, not {text!r}", "the first of eight machines takes 1/8")


class Lines(Generic[T]):
    """The result of `parse` for each line and number, in order. A thread reads ahead, at most `ahead` lines of `ahead_bytes` in all."""

    def __init__(self, streams: Iterator[IO[bytes]], parse: Callable[[bytes, int], T], ahead: int, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._ahead = ahead
        self._ahead_bytes = ahead_bytes
        self._waiting: deque[tuple[T | TgenError | None, int]] = deque()  # each with the length of its line
        self._bytes = 0
        self._changed = threading.Condition()
        self._end: TgenError | None = None
        self.ended = False
        threading.Thread(target=self._read_ahead, args=(streams, parse), daemon=True).start()

    def take(self, wait: bool, cancelled: Callable[[], bool] = lambda: False) -> T | None:
        """The next result. None at the end, when `cancelled`, and, without `wait`, if none is ready yet.

        Raises TgenError, after the results before it, for a line that cannot be parsed or read; no result follows an error.
        """
        if self._end is not None:
            raise self._end
        if self.ended:
            return None
        with self._changed:
            while not self._waiting:
                if not wait or cancelled():
                    return None
                self._changed.wait(PATIENCE_SECONDS)
            found, length = self._waiting.popleft()
            self._bytes -= length
            self._changed.notify_all()
        if isinstance(found, TgenError):
            self._end = found
            raise found
        self.ended = found is None
        return found

    def _put(self, found: T | TgenError | None, length: int = 0) -> None:
        """Put a line into the queue once there is room. A line larger than the whole queue waits until the queue is empty."""
        with self._changed:
            while len(self._waiting) >= self._ahead or (self._waiting and self._bytes + length > self._ahead_bytes):
                self._changed.wait()
            self._waiting.append((found, length))
            self._bytes += length
            self._changed.notify_all()

    def _read_ahead(self, streams: Iterator[IO[bytes]], parse: Callable[[bytes, int], T]) -> None:
        """Put every line into the queue, and at the end None or the error that ended the reading."""
        end: TgenError | None = None
        try:
            number = 0
            for stream in streams:
                with stream:
                    while line := stream.readline(MOST_BYTES):
                        number += 1
                        self._put(parse(line.removesuffix(b"\n").removesuffix(b"\r"), number), len(line))
                        while len(line) == MOST_BYTES and not line.endswith(b"\n"):  # the rest of a line that is too long
                            line = stream.readline(MOST_BYTES)
        except TgenError as error:
            end = error
        except OSError as error:
            end = UsageError(f"cannot read the input: {error.strerror}", "check where it comes from")
        except BaseException as error:  # without an end in the queue, `take` would wait for ever
            end = TgenError(f"reading the input failed: {type(error).__name__}: {error}")
        self._put(end)


def line_batches(words: Sequence[str] | None, file: Path | None, size: int) -> Iterator[list[Line]]:
    """Lines in order: as many as are there, at most `size` at a time, waiting only while there is none.

    Those of standard input stand before those of an argument. Raises UsageError at once where there is nothing to read, and for a line
    that is not UTF-8 after those before it.
    """
    given = read_arguments(words, file)
    if given.text is not None:
        lines = [_line(text, number) for number, text in enumerate(os.fsencode(given.text).split(b"\n"), start=1)]
        return _after_stdin(given, lines, size)
    return _drained(Lines(open_inputs([given.file or Path("-")], ""), _line, 4 * size), size)


def _after_stdin(given: Given, lines: list[Line], size: int) -> Iterator[list[Line]]:
    """Lines of an argument, after those of standard input if there are any. Raises UsageError if standard input stays silent."""
    count = 0
    if has_companion(given):
        for batch in _drained(Lines(iter([_standard()]), _line, 4 * size), size):
            count = batch[-1].number
            yield batch
    yield [Line(count + line.number, line.text) for line in lines]


def open_inputs(files: Sequence[Path], hint: str) -> Iterator[IO[bytes]]:
    """The streams of files in turn; `-`, or no file at all, is standard input. Raises UsageError at once for a file that cannot be read.

    `hint` says what to do where standard input is a terminal: lines are not typed.
    """
    if not files and (sys.stdin is None or is_terminal(sys.stdin)):
        raise UsageError("there is no text", hint)
    for file in files:
        if file != Path("-") and not file.is_fifo():  # a program that writes into a pipe would take this closing for the end of its reader
            _opened(file).close()
    return (_standard() if file == Path("-") else _opened(file) for file in files or [Path("-")])


def _standard() -> IO[bytes]:
    if sys.stdin is None:
        raise UsageError("standard input is closed", "give a file")
    # A stream of its own: the thread may still wait for it when Python closes sys.stdin at its end.
    return open(os.dup(sys.stdin.fileno()), "rb")


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", "check the path") from error


def _drained(lines: Lines[Line], size: int) -> Iterator[list[Line]]:
    while not lines.ended:
        batch: list[Line] = []
        try:
            while len(batch) < size and (line := lines.take(wait=not batch)) is not None:
                batch.append(line)
        except TgenError:
            if batch:
                yield batch
            raise
        if batch:
            yield batch


def _line(line: bytes, number: int) -> Line:
    if len(line) >= MOST_BYTES:
        raise UsageError(f"line {number} is longer than {MOST_BYTES // 2**20} MiB", "break it up")
    return Line(number, decode_text(line, f"line {number}", start=number == 1))
