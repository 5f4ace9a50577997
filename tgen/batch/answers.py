"""From lines of JSON to their records, through a running batch. Knows lines, numbers and records, no command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from tgen.batch.journal import Journal
from tgen.batch.lines import MOST_BYTES, Lines
from tgen.errors import MemoryLimitError, TgenError, UsageError
from tgen.wire.result import Completion

if TYPE_CHECKING:
    from tgen.engine.generator import Generator
    from tgen.engine.scheduler import Refused, Request
    from tgen.events import Event
    from tgen.text.chat import ChatTemplate
    from tgen.wire.requests import Asked

# Lines are taken up to so many times the batch's size ahead of the first that has no record yet.
AHEAD = 16


@dataclass(frozen=True, slots=True)
class Read:
    """A line as the reading thread understood it: what it asks for and the prompt, or what is wrong with it, or that it is blank."""

    number: int
    line: dict[str, Any]
    asked: Asked | None = None
    prompt: str | Sequence[int] = ""
    error: TgenError | None = None
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """A line that is being answered; `samples` are its texts to come."""

    read: Read
    completion: Completion
    samples: int


class Answers:
    """A run over lines: `count` have been answered, `failed` of them by an error, with so many `tokens`."""

    def __init__(
        self,
        generator: Generator,
        name: str,
        find_template: Callable[[], ChatTemplate],
        options: dict[str, Any],
        journal: Journal,
        *,
        ordered: bool,
        size: int,
    ) -> None:
        """`options` are for lines that say nothing else; `size` rows are computed at once. `find_template` is asked for the model's chat
        template when a line needs it, and raises TgenError if there is none."""
        self.count = self.failed = self.tokens = 0
        self._generator = generator
        self._name = name
        self._find_template = find_template
        self._options = options
        self._journal = journal
        self._ordered = ordered
        self._size = size
        self._reached = 0
        self._pending: dict[int, Pending] = {}
        self._ready: dict[int, dict[str, Any]] = {}
        self._end: TgenError | None = None
        self._template: ChatTemplate | None = None

    @property
    def done(self) -> int:
        """How many lines need nothing more, blank ones and those of an earlier run included."""
        return len(self._journal.written) + len(self._ready)

    def run(self, streams: Iterator[IO[bytes]], cancelled: Callable[[], bool]) -> Iterator[int]:
        """Answer all lines; yields each one's number when it is answered.

        Raises TgenError for what ends the run, such as an input that breaks off: the lines before that are answered first. However it
        ends, all that was answered is written, if need be before its turn.
        """
        from tgen.engine.scheduler import Batch

        lines = Lines(streams, self._read, 4 * self._size)
        try:
            for number, event in Batch(self._generator, self._size).run(partial(self._take, lines, cancelled), cancelled):
                if self._hear(self._pending[number], event):
                    yield number
        except MemoryLimitError as error:
            raise MemoryLimitError(error.message, "a smaller --batch-size needs less; with --output, --resume goes on") from error
        finally:
            for number in sorted(self._ready) if self._journal.whole else ():
                self._journal.write(number, self._ready[number])
        if self._end is not None:
            raise self._end

    def _read(self, data: bytes, number: int) -> Read:
        """Understand a line, in the reading thread: a chat template takes its time, and the batch goes on meanwhile."""
        from tgen.wire.requests import read_object, read_request

        line: dict[str, Any] = {}
        if not data.strip():
            return Read(number, line, blank=True)
        try:
            if len(data) >= MOST_BYTES:
                raise UsageError(f"it is longer than {MOST_BYTES // 2**20} MiB", "break it up")
            line = read_object(data)
            if number in self._journal.written:
                return Read(number, line)
            asked = read_request(line)
            return Read(number, line, asked, self._prompt(asked))
        except TgenError as error:
            return Read(number, line, error=error)

    def _prompt(self, asked: Asked) -> str | Sequence[int]:
        """What the model is to read. Raises TgenError for messages without a chat template that takes them."""
        if asked.messages is None:
            return asked.prompt or ""
        if self._template is None:
            self._template = self._find_template()
        return self._template.encode(self._generator.tokenizer, asked.messages, extra=asked.template_arguments)[0]

    def _take(self, lines: Lines[Read], cancelled: Callable[[], bool], wait: bool) -> Request | Refused | None:
        """The next line that needs an answer."""
        while not cancelled() and (wait or self._reached < self._journal.written.all_up_to + AHEAD * self._size):
            try:
                read = lines.take(wait, cancelled)
            except TgenError as error:
                self._end = error
                return None
            if read is None:
                if lines.ended:
                    self._check_whole()
                return None
            self._reached = read.number
            if read.number in self._journal.written:
                self._compare(read)
            elif read.blank:
                self._journal.written.add(read.number)
                self._write()
            else:
                return self._request(read)
        return None

    def _request(self, read: Read) -> Request | Refused:
        """A line for the batch, and the place where its answer is collected."""
        from tgen.engine.scheduler import Refused, Request
        from tgen.wire.requests import merged

        asked, error = read.asked, read.error
        prefix = asked.prompt if asked is not None and asked.echo and isinstance(asked.prompt, str) else ""
        completion = Completion(self._name, prefix)
        if asked is not None:
            try:
                resolved = self._generator.resolve(merged(self._options, asked.options), os.environ)
                self._pending[read.number] = Pending(read, completion, resolved.options.samples)
                return Request(read.number, read.prompt, resolved)
            except TgenError as wrong:
                error = wrong
        self._pending[read.number] = Pending(read, completion, 0)
        return Refused(read.number, error or UsageError("it asks for nothing"))

    def _hear(self, pending: Pending, event: Event | TgenError) -> bool:
        """Take an event of a line; whether it was the last one, so that the line is answered."""
        from tgen.wire.requests import failure, success

        number, asked, completion = pending.read.number, pending.read.asked, pending.completion
        if isinstance(event, TgenError):
            self._answer(number, failure(number, pending.read.line, event))
            self.failed += 1
            return True
        completion.add(event)
        if asked is None or completion.finished < pending.samples:
            return False
        self.tokens += completion.tokens
        self._answer(number, success(number, asked, completion.object(chat=asked.messages is not None)))
        return True

    def _answer(self, number: int, record: dict[str, Any]) -> None:
        """Have a line's record written, now or when its turn comes."""
        del self._pending[number]
        self.count += 1
        if self._ordered:
            self._ready[number] = record
            self._write()
        else:
            self._journal.write(number, record)

    def _write(self) -> None:
        """Write the records whose turn it is."""
        while (number := self._journal.written.all_up_to + 1) in self._ready:
            self._journal.write(number, self._ready.pop(number))

    def _compare(self, read: Read) -> None:
        """Raise UsageError if the last line that has a record is not the one that its record is of."""
        from tgen.wire.requests import identity

        last = self._journal.last
        if last is not None and last.number == read.number and identity(read.line) != last.identity:
            message = f"line {read.number} of the input is {identity(read.line)!r}, but the output's record of it is of {last.identity!r}"
            raise UsageError(message, "--resume needs the input that the run began with")

    def _check_whole(self) -> None:
        """Raise UsageError if there are records of more lines than there are."""
        highest = self._journal.written.highest
        if highest > self._reached:
            message = f"the input has {self._reached} lines, but the output has a record of line {highest}"
            raise UsageError(message, "--resume needs the input that the run began with")
