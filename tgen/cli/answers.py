"""From lines of JSON to their records, through a running batch. Knows lines, numbers and records, no command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tgen.cli.journal import Journal
from tgen.cli.lines import MOST_BYTES, Lines
from tgen.cli.model import chat_template
from tgen.errors import TgenError, UsageError
from tgen.ui.result import Completion

if TYPE_CHECKING:
    from tgen.checkpoint.folder import Checkpoint
    from tgen.engine.batch import Request
    from tgen.engine.generator import Generator
    from tgen.engine.requests import Asked
    from tgen.text.chat import ChatTemplate

# Lines are taken up to so many times the batch's size ahead of the first that has no record yet.
AHEAD = 16


@dataclass(frozen=True, slots=True)
class Pending:
    """A line that is being answered."""

    line: dict[str, Any]
    asked: Asked
    samples: int
    completion: Completion


@dataclass(slots=True)
class Answers:
    """A run over lines: `count` have been answered, `failed` of them by an error, with so many `tokens`."""

    generator: Generator
    name: str
    checkpoint: Checkpoint
    options: dict[str, Any]
    journal: Journal
    lines: Lines[tuple[int, bytes]]
    cancelled: Callable[[], bool]
    ordered: bool
    count: int = 0
    failed: int = 0
    tokens: int = 0
    _reached: int = 0
    _window: int = 0
    _pending: dict[int, Pending] = field(default_factory=dict)
    _ready: dict[int, dict[str, Any]] = field(default_factory=dict)
    _end: TgenError | None = None
    _template: ChatTemplate | None = None

    def run(self, size: int) -> Iterator[int]:
        """Answer all lines, `size` rows at once; yields each line's number when it is answered.

        Raises TgenError for what ends the run, such as an input that breaks off: the lines before that are answered first.
        """
        from tgen.engine.batch import Batch
        from tgen.engine.requests import failure, success

        self._window = AHEAD * size
        for number, event in Batch(self.generator, size).run(self._take, self.cancelled):
            pending = self._pending[number]
            if isinstance(event, TgenError):
                self._answer(number, failure(number, pending.line, event), failed=True)
            else:
                pending.completion.add(event)
                if pending.completion.finished < pending.samples:
                    continue
                self.tokens += pending.completion.tokens
                self._answer(number, success(number, pending.asked, pending.completion.object(chat=pending.asked.messages is not None)))
            yield number
        if self._end is not None:
            raise self._end

    def _take(self, wait: bool) -> Request | None:
        """The next line that can be continued; those that cannot are answered on the way."""
        while not self.cancelled() and (wait or self._reached < self.journal.written.all_up_to + self._window):
            try:
                found = self.lines.take(wait, self.cancelled)
            except TgenError as error:
                self._end = error
                return None
            if found is None:
                if self.lines.ended:
                    self._check_whole()
                return None
            self._reached, data = found
            request = self._request(self._reached, data)
            if request is not None:
                return request
        return None

    def _request(self, number: int, data: bytes) -> Request | None:
        """A line as a request; None for one that has its record already, is blank, or is answered by what is wrong with it."""
        from tgen.engine.batch import Request
        from tgen.engine.requests import failure, merged, read_object, read_request

        if number in self.journal.written:
            self._compare(number, data)
            return None
        if not data.strip():
            self.journal.written.add(number)
            self._write()
            return None
        line: dict[str, Any] = {}
        try:
            if len(data) >= MOST_BYTES:
                raise UsageError(f"it is longer than {MOST_BYTES // 2**20} MiB", "break it up")
            line = read_object(data)
            asked = read_request(line)
            prompt = self._prompt(asked)
            resolved = self.generator.resolve(merged(self.options, asked.options), os.environ)
        except TgenError as error:
            self._answer(number, failure(number, line, error), failed=True)
            return None
        echoed = asked.prompt if asked.echo and isinstance(asked.prompt, str) else ""
        self._pending[number] = Pending(line, asked, resolved.options.samples, Completion(self.name, echoed))
        return Request(number, prompt, resolved)

    def _prompt(self, asked: Asked) -> str | Sequence[int]:
        """What the model is to read. Raises TgenError for messages that its chat template cannot be found for, or refuses."""
        if asked.messages is None:
            return asked.prompt or ""
        if self._template is None:
            self._template = chat_template(self.checkpoint)
        return self._template.encode(self.generator.tokenizer, asked.messages)[0]

    def _answer(self, number: int, record: dict[str, Any], *, failed: bool = False) -> None:
        """Have a line's record written, now or when its turn comes."""
        self._pending.pop(number, None)
        self.count += 1
        self.failed += failed
        if self.ordered:
            self._ready[number] = record
            self._write()
        else:
            self.journal.write(number, record)

    def _write(self) -> None:
        """Write the records whose turn it is."""
        while (number := self.journal.written.all_up_to + 1) in self._ready:
            self.journal.write(number, self._ready.pop(number))

    def _compare(self, number: int, data: bytes) -> None:
        """Raise UsageError if the last line that has a record is not the one that its record is of."""
        from tgen.engine.requests import identity, read_object

        if self.journal.last is None or self.journal.last[0] != number:
            return
        try:
            found = identity(read_object(data))
        except UsageError:
            found = None
        if found != self.journal.last[1]:
            message = f"line {number} of the input is {found!r}, but the output's record of it is of {self.journal.last[1]!r}"
            raise UsageError(message, "--resume needs the input that the run began with")

    def _check_whole(self) -> None:
        """Raise UsageError if there are records of more lines than there are."""
        if self.journal.written.highest > self._reached:
            message = f"the input has {self._reached} lines, but the output has a record of line {self.journal.written.highest}"
            raise UsageError(message, "--resume needs the input that the run began with")
