"""/v1/chat/completions and /v1/responses: answers conversations, with calls of functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgen.engine.job import Job
from tgen.errors import UsageError
from tgen.events import Event, Finished
from tgen.options import Resolved
from tgen.server.calls import Answer, Call
from tgen.server.endpoints.generating import Streaming, Texts, head, make_jobs, resolved_options, take_streaming
from tgen.server.models import Served
from tgen.server.sending import sse
from tgen.text.calls import CallReader, call_reader
from tgen.text.chat import Ending
from tgen.values import CONSTRAINTS
from tgen.wire.chunks import ChatChunks, Message
from tgen.wire.records import OBJECTS, chat_object
from tgen.wire.requests import JsonRequest, read_body, take_ending, take_flag
from tgen.wire.responses import ResponseEvents, chat_body
from tgen.wire.tools import Tools, take_tools


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation that is being answered."""

    model: Served
    tools: Tools
    texts: Texts

    def message(self, answer: str, index: int) -> Message:
        """A new message of an answer with this id."""
        tools, tokenizer = self.tools, self.model.writing().generator.tokenizer
        return Message(
            answer, index, _reader(self.model, tools), lambda ids: tokenizer.decode(list(ids), special=True), None if tools.parallel else 1
        )

    def split(self, answer: str, finished: Finished, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The text and the calls of a whole message."""
        message = self.message(answer, finished.index)
        said = message.feed(text)[0] + message.end(finished)[0]
        return said, message.calls


async def chat(call: Call) -> Answer:
    """Answer a request for a chat completion. Raises TgenError, HttpError."""
    streaming = take_streaming(call.body)
    talk = await _begin(call)
    start = head(call, "chatcmpl-", talk.model.name, streaming)
    if streaming.wanted:
        return talk.texts.chunked(ChatChunks(start, lambda index: talk.message(start["id"], index)), streaming)
    events = await talk.texts.collected()
    answer = chat_object(talk.model.name, events, lambda finished, text: talk.split(start["id"], finished, text))
    return {**start, "object": OBJECTS["chat"], **answer}


async def respond(call: Call) -> Answer:
    """Answer a request for a response. Raises TgenError, HttpError."""
    body, streaming = dict(call.body), Streaming(take_flag(call.body, "stream"))
    call.body.pop("stream_options", None)
    call.body = chat_body(call.body)
    talk = await _begin(call)
    if talk.texts.samples > 1:
        raise UsageError("a response has one text", "leave n out, or use /v1/chat/completions")
    identity = call.identity("resp_")
    events = ResponseEvents(identity, call.created, talk.model.name, body, talk.message(identity, 0))
    frames = _ResponseFrames(events)
    if streaming.wanted:
        return talk.texts.stream(frames)
    async for _ in talk.texts.stream(frames, whole=True):
        pass
    return events.response


@dataclass(frozen=True, slots=True)
class _ResponseFrames:
    """The events of a response."""

    made: ResponseEvents

    def begin(self) -> Iterator[bytes]:
        """The frames before the text."""
        return map(self._frame, self.made.begin())

    def add(self, event: Event) -> Iterator[bytes]:
        """The frames that an event makes."""
        return map(self._frame, self.made.add(event))

    def end(self, counted: dict[str, Any]) -> Iterator[bytes]:
        """The frames after the text."""
        return map(self._frame, self.made.end(counted))

    @staticmethod
    def _frame(record: dict[str, Any]) -> bytes:
        return sse(record, record["type"])


async def _begin(call: Call) -> Chat:
    """Read a chat request and make its job. Raises TgenError, HttpError."""
    model = await call.model()
    engine = model.writing()
    tools = take_tools(call.body)
    ending = take_ending(call.body)
    request = read_body("chat", call.body)
    forced = {}
    if tools.forced is not None:
        if any(name in request.options for name in CONSTRAINTS):
            raise UsageError("tool_choice and response_format exclude each other", "leave one of them out")
        forced = {"json_schema": tools.forced}
    resolved = resolved_options(call, engine, request, forced)
    ids = await asyncio.to_thread(_encoded, model, request, tools, ending)
    jobs: Sequence[Job] = await make_jobs(call, engine, [ids], _fill_context(resolved, engine.generator.context, len(ids)))
    reader = _reader(model, tools)
    return Chat(model, tools, Texts(call, engine, jobs, resolved.options.samples, marks=reader.marks if reader else frozenset()))


def _reader(model: Served, tools: Tools) -> CallReader | None:
    """The reader that finds calls in the model's answers; None if there can be none."""
    return call_reader(model.template.source, tools.functions, forced=tools.forced is not None)


def _encoded(model: Served, request: JsonRequest, tools: Tools, ending: Ending) -> list[int]:
    """The conversation as ids. Raises TgenError."""
    template = replace(model.template.with_tools(tools.definitions), ending=ending)
    tokenizer = model.writing().generator.tokenizer
    return template.encode(tokenizer, request.messages or [], extra=request.template_arguments)[0]


def _fill_context(resolved: Resolved, context: int, read: int) -> Resolved:
    """Let an answer fill the context, as in `tgen chat`, unless the user or the model's folder sets a limit."""
    if resolved.origins["max_new_tokens"] != "built-in":
        return resolved
    room = max(1, context - read)
    if resolved.options.overflow == "truncate-left":
        room = max(room, context // 4)
    return replace(resolved, options=replace(resolved.options, max_new_tokens=room))
