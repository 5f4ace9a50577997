"""A run over lines of JSON: each line becomes a request, requests share a running batch, and each answer becomes a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from tgen.batch.journal import Journal, NobodyReadsError, encode
from tgen.batch.lines import MOST_BYTES, Lines
from tgen.errors import TgenError, UsageError
from tgen.events import Event, Finished
from tgen.wire.records import answer_record, error_record, token_count
from tgen.wire.requests import JsonRequest, LineKey, line_key, merged, read_object, read_request

if TYPE_CHECKING:
    from tgen.engine.generator import Generator
    from tgen.text.chat import ChatTemplate

# How far the run goes ahead of the first line that has no record yet: in lines, as a multiple of the batch's size, and in bytes of records
# that wait for their turn.
AHEAD = 16
AHEAD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line as the reading thread understood it. A line without a request is blank or has an error."""

    key: LineKey
    request: JsonRequest | None = None
    prompt: str | Sequence[int] = ""
    error: TgenError | None = None


@dataclass(slots=True)
class Pending:
    """A line that is being answered: the events so far, and how many samples have not ended."""

    line: InputLine
    unfinished: int = 0
    events: list[Event] = field(default_factory=list)


class BatchRun:
    """Answers lines: `count` so far, `failed` of them by an error, with `tokens` written in all."""

    def __init__(
        self,
        generator: Generator,
        name: str,
        find_template: Callable[[], ChatTemplate],
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        journal: Journal,
        *,
        ordered: bool,
        size: int,
    ) -> None:
        """`options` and the `environment` are for lines that do not set them; `size` rows are computed at once.

        `find_template` gives the model's chat template when a line needs it, and raises TgenError if there is none.
        """
        self.count = self.failed = self.tokens = 0
        self._generator = generator
        self._name = name
        self._find_template = find_template
        self._options = options
        self._environment = environment
        self._journal = journal
        self._ordered = ordered
        self._size = size
        self._reached = 0
        self._pending: dict[int, Pending] = {}
        self._ready: dict[int, tuple[bytes, bool]] = {}  # records that wait for their turn, and whether each is an error
        self._ready_bytes = 0
        self._end: TgenError | None = None
        self._template: ChatTemplate | None = None

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
            for number, event in self._events(lines, cancelled):
                if self._hear(number, event):
                    yield number
        except NobodyReadsError:
            return
        finally:
            self._write_all()
        if self._end is not None:
            raise self._end

    def _events(self, lines: Lines[InputLine], cancelled: Callable[[], bool]) -> Iterator[tuple[int, Event | TgenError]]:
        """The engine's events for each line, by its number, or the error that ends it. Only this method calls the engine."""
        from tgen.engine.request import Refused, Request

        def take(wait: bool) -> Request | Refused | None:
            line = self._next(lines, cancelled, wait)
            if line is None:
                return None
            pending = self._pending[line.key.number] = Pending(line)
            if line.request is None:
                return Refused(line.key.number, line.error or UsageError("it asks for nothing"))
            try:
                resolved = self._generator.resolve(merged(self._options, line.request.options), self._environment)
            except TgenError as error:
                return Refused(line.key.number, error)
            pending.unfinished = resolved.options.samples
            return Request(line.key.number, line.prompt, resolved)

        yield from self._generator.run_many(take, self._size, cancelled)

    def _read(self, data: bytes, number: int) -> InputLine:
        """Understand a line. The reading thread does it, so that the batch goes on while a chat template is rendered."""
        key = LineKey(number)
        if not data.strip():
            return InputLine(key)
        try:
            if len(data) >= MOST_BYTES:
                raise UsageError(f"it is longer than {MOST_BYTES // 2**20} MiB", "break it up")
            value = read_object(data)
            key = line_key(number, value)
            if number in self._journal.written:
                return InputLine(key)
            request = read_request(value)
            return InputLine(key, request, self._prompt(request))
        except TgenError as error:
            error.__cause__ = error.__context__ = None  # like the traceback, these keep the whole line in memory
            return InputLine(key, error=error.with_traceback(None))

    def _prompt(self, request: JsonRequest) -> str | Sequence[int]:
        """The prompt as text or ids. Raises TgenError for messages if the model has no chat template, or its template refuses them."""
        if request.messages is None:
            return request.prompt or ""
        if self._template is None:
            self._template = self._find_template()
        return self._template.encode(self._generator.tokenizer, request.messages, extra=request.template_arguments)[0]

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
            if line.request is not None or line.error is not None:
                return line
            self._journal.written.add(line.key.number)
            self._write()
        return None

    def _may_go_on(self) -> bool:
        ahead = self._reached - self._journal.written.all_up_to
        return ahead < AHEAD * self._size and self._ready_bytes < AHEAD_BYTES

    def _hear(self, number: int, event: Event | TgenError) -> bool:
        """Take an event of a line. Returns whether it was the last one, so that the line is answered."""
        pending = self._pending[number]
        key, request = pending.line.key, pending.line.request
        if isinstance(event, TgenError):
            self.failed += 1
            self._answer(number, encode(error_record(key, event)), failed=True)
            return True
        pending.events.append(event)
        pending.unfinished -= isinstance(event, Finished)
        if request is None or pending.unfinished:
            return False
        self.tokens += token_count(pending.events)
        self._answer(number, encode(answer_record(key, request, self._name, pending.events)), failed=False)
        return True

    def _answer(self, number: int, record: bytes, *, failed: bool) -> None:
        """Write a line's record now, or keep it until its turn comes."""
        del self._pending[number]
        self.count += 1
        if self._ordered:
            self._ready[number] = record, failed
            self._ready_bytes += len(record)
            self._write()
        else:
            self._journal.write(number, record, failed=failed)

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
        """Raise UsageError if there are records of more lines than there are."""
        if self._journal.highest > self._reached:
            message = f"the input has {self._reached} lines, but the output has a record of line {self._journal.highest}"
            raise UsageError(message, "--resume needs the input that the run began with")
