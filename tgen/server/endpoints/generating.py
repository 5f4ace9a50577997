"""What all requests for text share: making jobs from prompts, and a stream from the jobs' events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tgen.engine.job import Job
from tgen.engine.request import Request
from tgen.errors import UsageError
from tgen.events import Event, Finished, Piece, Reading, Special, Started, Token, TokenScore
from tgen.options import Resolved
from tgen.server.calls import Call
from tgen.server.sending import comment, sse
from tgen.server.worker import Engine
from tgen.text.tokenizer import Tokenizer
from tgen.wire.records import usage
from tgen.wire.requests import JsonRequest, merged, take_flag

Prompt = str | Sequence[int]
DONE = b"data: [DONE]\n\n"
# Prompts of at most so many characters or ids together are encoded here, because waking another thread would take longer.
QUICK = 1000


class Frames(Protocol):
    """Makes the server-sent events of a stream: those before the texts, those of an event, and those after the texts, with the usage."""

    def begin(self) -> Iterator[bytes]: ...
    def add(self, event: Event) -> Iterator[bytes]: ...
    def end(self, counted: dict[str, Any]) -> Iterator[bytes]: ...


class Chunks(Protocol):
    """Makes the chunks of OpenAI's streams, as JSON."""

    def begin(self, index: int) -> Iterator[str]: ...
    def add(self, event: Event) -> Iterator[str]: ...
    def usage(self, counted: dict[str, Any]) -> str: ...


@dataclass(frozen=True, slots=True)
class Streaming:
    """Whether to stream, and whether to send the usage at the end."""

    wanted: bool
    usage: bool = False


def take_streaming(body: dict[str, Any]) -> Streaming:
    """Take OpenAI's keys for streams out of a body. Raises UsageError."""
    wanted, options = take_flag(body, "stream"), body.pop("stream_options", None)
    if options is None:
        return Streaming(wanted)
    if not wanted:
        raise UsageError("stream_options needs stream to be true", "leave it out")
    if not isinstance(options, dict):
        raise UsageError("stream_options must be an object")
    options = dict(options)
    usage, often, _ = (take_flag(options, key) for key in ("include_usage", "continuous_usage_stats", "include_obfuscation"))
    if options or often:
        raise UsageError(f"stream_options cannot honour {min(options, default='continuous_usage_stats')!r}", "leave it out")
    return Streaming(wanted, usage)


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts that continue prompts, `samples` for each. `shown` are the prompts to send before the texts; None sends none.

    The special tokens in `marks` count as text.
    """

    call: Call
    engine: Engine
    jobs: Sequence[Job]
    samples: int
    shown: Sequence[str] | None = None
    marks: Collection[str] = frozenset()

    async def collected(self) -> list[Event]:
        """All events."""
        async with aclosing(self._parts(whole=True)) as parts:
            return [own async for part in parts for number, event in part for own in self._own(number, event)]

    def chunked(self, chunks: Chunks, streaming: Streaming) -> AsyncGenerator[bytes]:
        """A stream of OpenAI's chunks."""
        return self.stream(_ChunkFrames(chunks, len(self.jobs) * self.samples, streaming))

    async def stream(self, frames: Frames, *, whole: bool = False) -> AsyncGenerator[bytes]:
        """Server-sent events, in one piece for events that come together. Comments tell how far a long prompt has been read.

        With `whole`, the events may come late.
        """
        kept: list[Event] = []
        said, left = [*frames.begin()], len(self.jobs) * self.samples
        async with aclosing(self._parts(whole=whole)) as parts:
            async for part in parts:
                for number, received in part:
                    for event in self._own(number, received):
                        if isinstance(event, Reading):
                            said.append(comment(f"read {event.done} of {event.total} tokens"))
                        elif isinstance(event, Started | Finished):
                            kept.append(event)
                            left -= isinstance(event, Finished)
                        said += frames.add(event)
                if not left:
                    said += frames.end(usage(kept))
                yield b"".join(said)
                said.clear()

    def _parts(self, *, whole: bool) -> AsyncGenerator[list[tuple[int, Event]]]:
        """The events of all jobs as they come."""
        return self.call.service.worker.parts(self.engine, self.jobs, whole=whole)

    def _own(self, number: int, event: Event) -> list[Event]:
        """An event of a job, counted, as one of the answer; the prompt comes after Started if it is to be shown.

        All jobs together look like samples of one: sample s of job j has the index j * samples + s.
        """
        self.call.service.metrics.heard(event)
        if isinstance(event, Special) and event.text in self.marks:
            event = Piece(event.index, event.text)
        first = number * self.samples
        if isinstance(event, Started | Piece | Special | Finished) and number:
            event = replace(event, index=first + event.index)
        if not isinstance(event, Started) or self.shown is None:
            return [event]
        tokens = _prompt_tokens(self.engine.generator.tokenizer, self.jobs[number], event)
        return [event, *(Piece(index, self.shown[number], tokens) for index in range(first, first + self.samples))]


@dataclass(frozen=True, slots=True)
class _ChunkFrames:
    """The server-sent events of the chunks of some texts."""

    chunks: Chunks
    texts: int
    streaming: Streaming

    def begin(self) -> Iterator[bytes]:
        """The frames before the texts."""
        return (sse(chunk) for index in range(self.texts) for chunk in self.chunks.begin(index))

    def add(self, event: Event) -> Iterator[bytes]:
        """The frames that an event makes."""
        return map(sse, self.chunks.add(event))

    def end(self, counted: dict[str, Any]) -> Iterator[bytes]:
        """The usage, if the request asks for it, and OpenAI's mark of the end."""
        if self.streaming.usage:
            yield sse(self.chunks.usage(counted))
        yield DONE


def resolved_options(call: Call, engine: Engine, request: JsonRequest, more: Mapping[str, Any] | None = None) -> Resolved:
    """The options in force: those of `more`, then the request's, then the server's. Raises UsageError."""
    try:
        return engine.generator.resolve(merged(call.service.options, {**request.options, **(more or {})}), call.service.environment)
    except UsageError as error:
        raise request.in_own_words(error) from error


async def make_jobs(
    call: Call, engine: Engine, prompts: Sequence[Prompt], resolved: Resolved, *, scored: bool = False, write: bool = True
) -> list[Job]:
    """The jobs of prompts. Another thread makes those of long prompts, because they take time. Raises TgenError."""
    score = resolved.options.logprobs if scored else None
    tokenizer, key = engine.generator.tokenizer, call.service.worker.key

    def make(prompt: Prompt) -> Job:
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return engine.job(Request(key(), ids, resolved, score, write))

    if sum(map(len, prompts)) <= QUICK:
        return [make(prompt) for prompt in prompts]
    return await asyncio.to_thread(lambda: [make(prompt) for prompt in prompts])


def head(call: Call, kind: str, model: str, streaming: Streaming) -> dict[str, Any]:
    """The fields with which an answer and all of its chunks begin."""
    counted = {"usage": None} if streaming.usage else {}
    return {"id": call.identity(kind), "created": call.created, "model": model, **counted}


def _prompt_tokens(tokenizer: Tokenizer, job: Job, started: Started) -> tuple[Token, ...]:
    """The tokens of a prompt with their scores; empty if there are none. The first token has no score, because nothing predicts it."""
    if not started.scores and job.score is None:
        return ()
    first = job.prepared.ids[0]
    spelled = None if tokenizer.written(first) is None else tokenizer.bytes_of(first)
    return (Token(TokenScore(first, tokenizer.decode([first], special=True), math.nan, spelled)), *started.scores)
