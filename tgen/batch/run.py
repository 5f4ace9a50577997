"""A run over lines of JSON: lines share a running batch, and each answer's record is written in its turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO

from tgen.batch.answering import Answer, Answers, InputLine, understand
from tgen.batch.journal import Journal, NobodyReadsError
from tgen.batch.lines import EVERY, Lines, Shard
from tgen.errors import TgenError, UsageError
from tgen.wire.requests import LineKey

# How far the run goes ahead of the first line that has no record yet: in lines, as a multiple of the batch's size, and in bytes of records
# that wait for their turn.
AHEAD = 16
AHEAD_BYTES = 64 * 2**20


class BatchRun:
    """Answers lines: `count` so far, `failed` of them by an error, with `tokens` written in all."""

    def __init__(self, answers: Answers, journal: Journal, *, ordered: bool, size: int, shard: Shard = EVERY) -> None:
        """About `size` lines are answered at once, those of the `shard` alone."""
        self.count = self.failed = self.tokens = 0
        self._answers = answers
        self._journal = journal
        self._ordered = ordered
        self._size = size
        self._shard = shard
        self._reached = 0
        self._ready: dict[int, tuple[bytes, bool]] = {}  # records that wait for their turn, and whether each is an error
        self._ready_bytes = 0
        self._end: TgenError | None = None

    @property
    def done(self) -> int:
        """How many lines need nothing more, blank ones and those of an earlier run included."""
        return len(self._journal.written) + len(self._ready)

    def run(self, streams: Iterator[IO[bytes]], cancelled: Callable[[], bool]) -> Iterator[int]:
        """Answer all lines; yields each one's number when it is answered.

        Raises TgenError for an error that ends the run, such as an input that breaks off, after the lines before it are answered. However
        the run ends, every answer is written, if need be before its turn.
        """
        lines = Lines(streams, self._read, 4 * self._size)
        try:
            for answer in self._answers.run(lambda wait: self._next(lines, cancelled, wait), self._size, cancelled):
                self._take(answer)
                yield answer.number
        except NobodyReadsError:
            return
        finally:
            self._write_all()
        if self._end is not None:
            raise self._end

    def _read(self, data: bytes, number: int) -> InputLine:
        """Understand a line. The reading thread does it, so that the batch goes on while a chat template is rendered."""
        if number not in self._shard:
            return InputLine(LineKey(number))
        if number in self._journal.written:
            return InputLine(understand(data, number).key)
        return self._answers.read(data, number)

    def _next(self, lines: Lines[InputLine], cancelled: Callable[[], bool], wait: bool) -> InputLine | None:
        """The next line to be answered. None at the end and, without `wait`, if none is ready or the run is far ahead."""
        while not cancelled() and (wait or self._may_go_on()):
            try:
                line = lines.take(wait, cancelled)
            except TgenError as error:
                self._end = error
                return None
            if line is None:
                if lines.ended:
                    self._check_whole()
                return None
            self._reached = line.key.number
            self._compare(line)
            if line.key.number in self._journal.written:
                continue
            if not line.blank:
                return line
            self._journal.written.add(line.key.number)
            self._write()
        return None

    def _may_go_on(self) -> bool:
        ahead = self._reached - self._journal.written.all_up_to
        return ahead < AHEAD * self._size and self._ready_bytes < AHEAD_BYTES

    def _take(self, answer: Answer) -> None:
        """Write a line's record now, or keep it until its turn comes."""
        self.count += 1
        self.failed += answer.failed
        self.tokens += answer.tokens
        if self._ordered:
            self._ready[answer.number] = answer.record, answer.failed
            self._ready_bytes += len(answer.record)
            self._write()
        else:
            self._journal.write(answer.number, answer.record, failed=answer.failed)

    def _write(self) -> None:
        """Write the records whose turn it is."""
        while (number := self._journal.written.all_up_to + 1) in self._ready:
            self._write_ready(number)

    def _write_all(self) -> None:
        """Write the records that still wait for their turn: the run is over, so their turn will not come."""
        with contextlib.suppress(NobodyReadsError):
            for number in sorted(self._ready) if self._journal.whole else ():
                self._write_ready(number)

    def _write_ready(self, number: int) -> None:
        record, failed = self._ready.pop(number)
        self._ready_bytes -= len(record)
        self._journal.write(number, record, failed=failed)

    def _compare(self, line: InputLine) -> None:
        """Raise UsageError if the last line that has a record is not the line that the record answers."""
        last = self._journal.last
        if last is not None and last.key.number == line.key.number and last.key.identity != line.key.identity:
            found, wanted = line.key.identity, last.key.identity
            message = f"line {line.key.number} of the input is {found!r}, but the output's record of it is of {wanted!r}"
            raise UsageError(message, "--resume needs the input that the run began with")

    def _check_whole(self) -> None:
        """Raise UsageError if there is a record of a line beyond the end of the input."""
        if self._journal.highest > self._reached:
            message = f"the input has {self._reached} lines, but the output has a record of line {self._journal.highest}"
            raise UsageError(message, "--resume needs the input that the run began with")
