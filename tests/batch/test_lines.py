"""Lines in: read ahead by a thread, but no further than there is room for."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from tgen.batch.lines import Lines
from tgen.errors import UsageError

SILENCE = 0.3  # how long nothing more must be read, where reading on would take no time


class Stream(io.BytesIO):
    """Counts the lines that were read, and tells once there are more than `limit`."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.count = 0
        self.limit = 0
        self.beyond = threading.Event()

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.count += 1
        if self.count > self.limit:
            self.beyond.set()
        return line


def reading(stream: Stream, limit: int, *bounds: int) -> Lines[bytes]:
    """A thread at work on a stream that it is not to read further than `limit` lines of."""
    stream.limit = limit
    return Lines(iter([stream]), lambda line, _: line, *bounds)


def test_no_more_lines_are_read_ahead_than_allowed() -> None:
    stream = Stream(b"a\n" * 50)
    lines = reading(stream, 5, 4)  # four wait, and one is in the thread's hands
    assert not stream.beyond.wait(SILENCE)
    stream.limit = 7
    assert [lines.take(True), lines.take(True)] == [b"a", b"a"]
    assert not stream.beyond.wait(SILENCE)
    stream.limit = 100
    assert [lines.take(True) for _ in range(49)] == [*[b"a"] * 48, None]
    assert lines.ended


def test_long_lines_are_bounded_by_their_bytes() -> None:
    stream = Stream(b"x" * 99 + b"\n" + b"y" * 999 + b"\n" + b"z" * 99 + b"\n" + b"a\n" * 50)
    lines = reading(stream, 2, 100, 300)
    assert not stream.beyond.wait(SILENCE), "the second line does not fit beside the first"
    stream.limit = 3
    assert lines.take(True) == b"x" * 99
    assert not stream.beyond.wait(SILENCE), "a line longer than all the room is alone"
    stream.limit = 20
    assert lines.take(True) == b"y" * 999
    assert stream.beyond.wait(30), "there is room for many again"
    assert [lines.take(True) for _ in range(52)] == [b"z" * 99, *[b"a"] * 50, None]


def test_an_error_comes_in_its_turn_and_is_the_end() -> None:
    def parse(line: bytes, number: int) -> Any:
        if number == 3:
            raise UsageError("three")
        return line

    lines: Lines[bytes] = Lines(iter([io.BytesIO(b"1\n2\r\n3\n4\n")]), parse, 2)
    assert [lines.take(True), lines.take(True)] == [b"1", b"2"]
    for _ in range(2):
        with pytest.raises(UsageError, match="three"):
            lines.take(True)


def test_who_does_not_wait_gets_none_and_who_is_cancelled_too() -> None:
    ready = threading.Event()

    class Slow(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            ready.wait()
            return super().readline(size)

    lines: Lines[bytes] = Lines(iter([Slow(b"a\n")]), lambda line, _: line, 2)
    assert lines.take(False) is None
    assert lines.take(True, lambda: True) is None
    assert not lines.ended
    ready.set()
    assert lines.take(True) == b"a"
