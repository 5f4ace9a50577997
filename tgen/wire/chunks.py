"""Turns events, as they come, into the chunks of OpenAI's streams, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tgen.events import Event, Finished, Piece
from tgen.text.call_forms import Call
from tgen.text.calls import CallReader
from tgen.wire.encoding import Form, json_text
from tgen.wire.records import Offsets, call_record, chat_logprobs, completion_logprobs, finish_reason

# Returns the text of a sample's ids, including special tokens.
Written = Callable[[Sequence[int]], str]


class CompletionChunks:
    """Makes the chunks of a completion; `head` are the fields that all of them have."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = {**head, "object": "text_completion"}
        self._plain: dict[int, Form] = {}  # by index, chunks without log-probabilities
        self._offsets: dict[int, Offsets] = {}

    def begin(self, index: int) -> Iterator[str]:
        """Nothing comes before the text."""
        self._plain[index] = Form(lambda text: self._chunk(index, text))
        self._offsets[index] = Offsets()
        yield from ()

    def add(self, event: Event) -> Iterator[str]:
        """The chunks that an event makes."""
        if isinstance(event, Piece):
            found = list(self._offsets[event.index].add(event))
            if event.tokens:
                yield json_text(self._chunk(event.index, event.text, completion_logprobs(event.tokens, found)))
            else:
                yield self._plain[event.index].filled(event.text)
        elif isinstance(event, Finished):
            yield json_text(self._chunk(event.index, "", reason=finish_reason(event)))

    def usage(self, counted: dict[str, Any]) -> str:
        """The last chunk, if the request asks for the usage."""
        return json_text({**self._head, "choices": [], "usage": counted})

    def _chunk(self, index: int, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}]}


class Message:
    """One message that comes in pieces: its text, and the calls that a reader finds in it."""

    def __init__(self, answer: str, index: int, reader: CallReader | None, written: Written, most: int | None = None) -> None:
        """`answer` is the id of the answer that the message is in; calls beyond `most` are dropped."""
        self._most = most
        self.calls: list[dict[str, Any]] = []
        self._answer = answer
        self._index = index
        self._reader = reader
        self._written = written

    def feed(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The text to show after this piece, and the records of the calls that are complete."""
        return (text, []) if self._reader is None else self._found(*self._reader.feed(text))

    def end(self, finished: Finished) -> tuple[str, list[dict[str, Any]]]:
        """The text that was held back, and the records of the calls in it."""
        return ("", []) if self._reader is None else self._found(*self._reader.flush(self._written(finished.ids)))

    def _found(self, text: str, calls: list[Call]) -> tuple[str, list[dict[str, Any]]]:
        new = [call_record(call, self._answer, self._index, number) for number, call in enumerate(calls, start=len(self.calls))]
        new = new if self._most is None else new[: max(0, self._most - len(self.calls))]
        self.calls += new
        return text, new


class ChatChunks:
    """Makes the chunks of a conversation's answer; `message` makes the message of a choice, by its index."""

    def __init__(self, head: dict[str, Any], message: Callable[[int], Message]) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._make = message
        self._messages: dict[int, Message] = {}
        self._plain: dict[int, Form] = {}  # by index, chunks that have only a text

    def begin(self, index: int) -> Iterator[str]:
        """The chunk that gives the role of the message."""
        self._messages[index] = self._make(index)
        self._plain[index] = Form(lambda text: self._chunk(index, {"content": text}))
        yield json_text(self._chunk(index, {"role": "assistant", "content": ""}))

    def add(self, event: Event) -> Iterator[str]:
        """The chunks that an event makes."""
        if isinstance(event, Piece):
            text, calls = self._messages[event.index].feed(event.text)
            logprobs = chat_logprobs(event.tokens) if event.tokens else None
            yield from self._said(event.index, text, calls, logprobs)
        elif isinstance(event, Finished):
            message = self._messages[event.index]
            yield from self._said(event.index, *message.end(event), None)
            yield json_text(self._chunk(event.index, {}, reason="tool_calls" if message.calls else finish_reason(event)))

    def usage(self, counted: dict[str, Any]) -> str:
        """The last chunk, if the request asks for the usage."""
        return json_text({**self._head, "choices": [], "usage": counted})

    def _said(self, index: int, text: str, calls: list[dict[str, Any]], logprobs: dict[str, Any] | None) -> Iterator[str]:
        if logprobs:
            yield json_text(self._chunk(index, {"content": text}, logprobs))
        elif text:
            yield self._plain[index].filled(text)
        first = len(self._messages[index].calls) - len(calls)
        for number, call in enumerate(calls, start=first):
            yield json_text(self._chunk(index, {"tool_calls": [{"index": number, **call}]}))

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}]}
