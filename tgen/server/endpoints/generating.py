"""What all requests for text have in common: from prompts to jobs, from jobs to events, from events to a stream."""

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
# Prompts of so many characters or ids together are read at once: waking another thread would take longer.
QUICK = 1000


class Chunks(Protocol):
    """Makes the objects of a stream."""

    def begin(self, index: int) -> Iterator[dict[str, Any]]: ...
    def add(self, event: Event) -> Iterator[dict[str, Any]]: ...
    def usage(self, counted: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Streaming:
    """Whether to stream, and whether with the usage at the end."""

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
    """The texts that continue prompts, `samples` for each; `shown` are the prompts to put before them, if they are to be put there.

    The special tokens `marks` count as text.
    """

    call: Call
    engine: Engine
    jobs: Sequence[Job]
    samples: int
    shown: Sequence[str] | None = None
    marks: Collection[str] = frozenset()

    async def events(self, *, whole: bool = False) -> AsyncGenerator[Event]:
        """The events of all jobs as if they were samples of one: sample s of job j has the index j * samples + s.

        With `whole`, they may come late.
        """
        metrics = self.call.service.metrics
        async with aclosing(self.call.service.worker.events(self.engine, self.jobs, whole=whole)) as found:
            async for number, event in found:
                metrics.heard(event)
                if isinstance(event, Special) and event.text in self.marks:
                    event = Piece(event.index, event.text)
                if isinstance(event, Piece | Special | Finished):
                    yield replace(event, index=number * self.samples + event.index)
                    continue
                yield event
                if isinstance(event, Started) and self.shown is not None:
                    tokens = _prompt_tokens(self.engine.generator.tokenizer, self.jobs[number], event)
                    for sample in range(self.samples):
                        yield Piece(number * self.samples + sample, self.shown[number], tokens)

    async def collected(self) -> list[Event]:
        """All events."""
        async with aclosing(self.events(whole=True)) as found:
            return [event async for event in found]

    async def stream(self, chunks: Chunks, streaming: Streaming) -> AsyncGenerator[bytes]:
        """The events as server-sent events, with comments that tell how far a long prompt has been read."""
        kept: list[Event] = []
        for index in range(len(self.jobs) * self.samples):
            for chunk in chunks.begin(index):
                yield sse(chunk)
        async with aclosing(self.events()) as found:
            async for event in found:
                if isinstance(event, Reading):
                    yield comment(f"read {event.done} of {event.total} tokens")
                    continue
                if isinstance(event, Started | Finished):
                    kept.append(event)
                for chunk in chunks.add(event):
                    yield sse(chunk)
        if streaming.usage:
            yield sse(chunks.usage(usage(kept)))
        yield DONE


def resolved_options(call: Call, engine: Engine, request: JsonRequest, more: Mapping[str, Any] | None = None) -> Resolved:
    """The options of a request above the server's, and `more` above them. Raises UsageError."""
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
    """What an answer and all of its chunks begin with."""
    counted = {"usage": None} if streaming.usage else {}
    return {"id": call.identity(kind), "created": call.created, "model": model, **counted}


def _prompt_tokens(tokenizer: Tokenizer, job: Job, started: Started) -> tuple[Token, ...]:
    """The tokens of a prompt with their scores, if there are any. Nothing predicts the first one."""
    if not started.scores and job.score is None:
        return ()
    first = job.prepared.ids[0]
    spelled = None if tokenizer.written(first) is None else tokenizer.bytes_of(first)
    return (Token(TokenScore(first, tokenizer.decode([first], special=True), math.nan, spelled)), *started.scores)
