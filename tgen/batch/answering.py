"""Turns a line of JSON into its record. The record depends on the line, the model and the command's options, not on where this runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from tgen.batch.journal import encode
from tgen.batch.lines import MOST_BYTES
from tgen.errors import TgenError, UsageError
from tgen.events import Event, Finished
from tgen.wire.records import answer_record, error_record, token_count
from tgen.wire.requests import JsonRequest, LineKey, line_key, merged, read_object, read_request

if TYPE_CHECKING:
    from tgen.engine.generator import Generator
    from tgen.engine.request import Refused, Request
    from tgen.text.chat import ChatTemplate


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line as it was understood. A line without a request is blank or has an error."""

    key: LineKey
    data: bytes = b""
    request: JsonRequest | None = None
    prompt: str | Sequence[int] = ""
    error: TgenError | None = None

    @property
    def blank(self) -> bool:
        """Whether there is nothing to answer."""
        return self.request is None and self.error is None


@dataclass(frozen=True, slots=True)
class Answer:
    """A line's record as bytes, whether it is an error, and how many tokens were written for it."""

    number: int
    record: bytes
    failed: bool = False
    tokens: int = 0


# Returns the next line. Take(True) waits for it, and None means that no more will come; Take(False) returns None if none is ready.
Take = Callable[[bool], InputLine | None]


class Answers(Protocol):
    """What answers lines: a model here, a server, or a cluster."""

    def read(self, data: bytes, number: int) -> InputLine:
        """Understand a line. A thread that reads ahead calls it."""
        ...

    def run(self, take: Take, rows: int, cancelled: Callable[[], bool]) -> Iterator[Answer]:
        """The answers to all lines, each as soon as it is there, about `rows` lines at once. Raises TgenError where the whole run fails."""
        ...


def understand(data: bytes, number: int) -> InputLine:
    """A line as it is understood without a model."""
    key = LineKey(number)
    if not data.strip():
        return InputLine(key)
    try:
        if len(data) >= MOST_BYTES:
            raise UsageError(f"it is longer than {MOST_BYTES // 2**20} MiB", "break it up")
        value = read_object(data)
        key = line_key(number, value)
        return InputLine(key, data, read_request(value))
    except TgenError as error:
        return InputLine(key, data, error=_alone(error))


def _alone(error: TgenError) -> TgenError:
    """The error without its traceback and its causes, which keep the whole line in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


@dataclass(slots=True)
class Pending:
    """A line that is being answered: the events so far, and how many samples have not ended."""

    line: InputLine
    unfinished: int = 0
    events: list[Event] = field(default_factory=list)


class Answerer:
    """Answers lines with a model."""

    def __init__(
        self,
        generator: Generator,
        name: str,
        find_template: Callable[[], ChatTemplate],
        options: Mapping[str, Any],
        environment: Mapping[str, str],
    ) -> None:
        """`options` and the `environment` are for lines that do not set them.

        `find_template` gives the model's chat template when a line needs it, and raises TgenError if there is none.
        """
        self.name = name
        self._generator = generator
        self._find_template = find_template
        self._options = options
        self._environment = environment
        self._template: ChatTemplate | None = None

    def read(self, data: bytes, number: int) -> InputLine:
        """Understand a line, and render the messages of a chat."""
        line = understand(data, number)
        try:
            return replace(line, data=b"", prompt="" if line.request is None else self._prompt(line.request))
        except TgenError as error:
            return InputLine(line.key, error=_alone(error))

    def request(self, line: InputLine) -> Request | Refused:
        """What the engine is to do for a line, or why it cannot."""
        from tgen.engine.request import Refused, Request

        if line.request is None:
            return Refused(line.key.number, line.error or UsageError("it asks for nothing"))
        try:
            resolved = self._generator.resolve(merged(self._options, line.request.options), self._environment)
        except TgenError as error:
            return Refused(line.key.number, _alone(error))
        return Request(line.key.number, line.prompt, resolved)

    def run(self, take: Take, rows: int, cancelled: Callable[[], bool]) -> Iterator[Answer]:
        """The answers to all lines, each as soon as it is there; `rows` rows are computed at once."""
        from tgen.engine.request import Refused

        going: dict[int, Pending] = {}

        def next_request(wait: bool) -> Request | Refused | None:
            line = take(wait)
            if line is None:
                return None
            request = self.request(line)
            going[line.key.number] = Pending(line, 0 if isinstance(request, Refused) else request.resolved.options.samples)
            return request

        for number, event in self._generator.run_many(next_request, rows, cancelled):
            pending = going[number]
            if isinstance(event, TgenError):
                del going[number]
                yield self.failed(pending.line, event)
                continue
            pending.events.append(event)
            pending.unfinished -= isinstance(event, Finished)
            if not pending.unfinished:
                del going[number]
                yield self.answer(pending.line, pending.events)

    def answer_all(self, lines: Iterable[tuple[int, bytes]], rows: int) -> list[Answer]:
        """The answers to these numbered lines, none of them blank, in their order."""
        waiting = iter([self.read(data, number) for number, data in lines])
        found = self.run(lambda _: next(waiting, None), rows, lambda: False)
        return sorted(found, key=lambda answer: answer.number)

    def answer(self, line: InputLine, events: Sequence[Event]) -> Answer:
        """The answer to a line, from all events of the engine for it."""
        assert line.request is not None
        record = answer_record(line.key, line.request, self.name, events)
        return Answer(line.key.number, encode(record), tokens=token_count(events))

    @staticmethod
    def failed(line: InputLine, error: TgenError) -> Answer:
        """The answer to a line that failed."""
        return Answer(line.key.number, encode(error_record(line.key, error)), failed=True)

    def _prompt(self, request: JsonRequest) -> str | Sequence[int]:
        """The prompt as text or ids. Raises TgenError for messages if the model has no chat template, or its template refuses them."""
        if request.messages is None:
            return request.prompt or ""
        if self._template is None:
            self._template = self._find_template()
        return self._template.encode(self._generator.tokenizer, request.messages, extra=request.template_arguments)[0]
