"""Answers tgen's own commands: it computes what they would compute, and sends events that they show as their own.

An answer is a stream of objects. The last one may be the error with which the command ends.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from collections.abc import Generator as Yields
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.batch.answering import Answerer
from tgen.checkpoint.generation import not_honoured, read_generation
from tgen.engine.generator import Generator
from tgen.engine.opening import no_text
from tgen.engine.request import Refused
from tgen.errors import TgenError, UsageError
from tgen.events import Event, Started
from tgen.options import resolve
from tgen.server.calls import Answer, Call, Handler, Service
from tgen.server.endpoints.bodies import check_body
from tgen.server.endpoints.borrowed import Borrowed, in_thread
from tgen.server.endpoints.generating import make_jobs
from tgen.server.models import Served
from tgen.server.problems import HttpError
from tgen.server.sending import sse
from tgen.tasks.conversation import Conversation, check_system
from tgen.tasks.scoring import probability_parts, scored_bytes, windowed
from tgen.tasks.translation import Translator
from tgen.tasks.vectors import embedder
from tgen.text.chat import ChatTemplate, Message, find_template, no_template, read_arguments
from tgen.text.reasoning import reasoning_of
from tgen.wire.events import event_record, failure_record, resolved_record

Records = Yields[dict[str, Any], None, None]
AsyncRecords = AsyncGenerator[dict[str, Any]]
Work = Callable[[Call, Served], AsyncRecords]


def _chosen(call: Call) -> Served:
    """The model that the command names by its folder, or the first one of a kind that the command takes. Raises UsageError."""
    name, kinds, models = call.body.get("model"), call.body.get("kinds") or (), call.service.models
    if name is not None:
        try:
            return models.find(name)
        except HttpError as error:
            raise UsageError(error.message, "leave --model out, or start a server with it") from error
    return next((model for model in models.all if model.checkpoint.spec.kind in kinds), models.all[0])


async def describe(call: Call) -> Answer:
    """What a command needs to know about a model before it asks, and the options in force if the command names any."""
    try:
        check_body("describe", call.body)
        checkpoint = _chosen(call).checkpoint
        settled = {}
        if (values := call.body.get("values")) is not None:
            defaults = read_generation(checkpoint).options
            settled = {"resolved": resolved_record(resolve(values, call.body.get("environment") or {}, defaults))}
    except TgenError as error:
        return failure_record(error)
    spec = checkpoint.spec
    return {"name": checkpoint.name, "kind": spec.kind, "context": spec.context, "ignored": not_honoured(checkpoint), **settled}


async def cancel(call: Call) -> Answer:
    """End the request with an id as Ctrl-C ends a command; its last events still come."""
    found = call.service.cancels.get(str(call.body.get("id")))
    if found is not None:
        found()
    return {"found": found is not None}


def answering(command: str) -> Handler:
    """The handler for a command."""

    async def handler(call: Call) -> Answer:
        return _stream(call, command)

    return handler


async def _stream(call: Call, command: str) -> AsyncGenerator[bytes]:
    try:
        check_body(command, call.body)
        model = _chosen(call)
        await call.stack.enter_async_context(call.service.models.use(model))
        async with aclosing(WORK[command](call, model)) as records:
            async for record in records:
                yield sse(record)
        yield sse({"end": True})  # a stream without this record is broken
    except TgenError as error:
        yield sse(failure_record(error))


async def generate(call: Call, model: Served) -> AsyncRecords:
    """The events of a generation."""
    body, engine, service = call.body, model.engine, call.service
    if engine is None:
        raise no_text(model.checkpoint.name)
    resolved = engine.generator.resolve(body["values"], body["environment"])
    prompt = await asyncio.to_thread(_prompt, engine.generator, model, body)
    reasoning = reasoning_of(model.tokenizer, prompt, model.template.source if body["chat"] else "")
    [job] = await make_jobs(call, engine, [prompt], resolved)
    service.cancels[body["id"]] = lambda: service.worker.cancel(engine, job.key)
    try:
        async with aclosing(service.worker.parts(engine, [job])) as parts:
            async for part in parts:
                for _, event in part:
                    for told in reasoning.feed(_as_alone(service, event)):
                        yield event_record(told)
    finally:
        service.cancels.pop(body["id"], None)


async def batch(call: Call, model: Served) -> AsyncRecords:
    """The record of a line of a batch."""
    body, engine, service = call.body, model.engine, call.service
    if engine is None:
        raise no_text(model.checkpoint.name)
    template = functools.partial(_template, model, body["template_arg"])
    answerer = Answerer(engine.generator, body["name"], template, body["values"], body["environment"])
    line = await asyncio.to_thread(answerer.read, body["line"].encode("latin-1"), body["number"])
    request = answerer.request(line)
    if isinstance(request, Refused):
        answer = answerer.failed(line, request.error)
    else:
        try:
            [job] = await make_jobs(call, engine, [request.prompt], request.resolved)
            service.cancels[body["id"]] = lambda: service.worker.cancel(engine, job.key)
            found: list[Event] = []
            async with aclosing(service.worker.parts(engine, [job], whole=True)) as parts:
                async for part in parts:
                    found += [_as_alone(service, event) for _, event in part]
            answer = answerer.answer(line, found)
        except TgenError as error:
            answer = answerer.failed(line, error)
        finally:
            service.cancels.pop(body["id"], None)
    yield {"number": answer.number, "record": answer.record.decode(), "failed": answer.failed, "tokens": answer.tokens}


def _as_alone(service: Service, event: Event) -> Event:
    """Count an event, and return it as the command alone would have it: without a server, no cache holds a part of the prompt."""
    service.metrics.heard(event)
    return replace(event, cached_tokens=0) if isinstance(event, Started) else event


def _template(model: Served, words: Sequence[str]) -> ChatTemplate:
    """The model's chat template with the `words` of --template-arg. Raises UsageError for a model that has none."""
    template = find_template(model.checkpoint.texts)
    if template is None:
        raise no_template(model.checkpoint.name)
    return template.with_arguments(read_arguments(words))


def _prompt(generator: Generator, model: Served, body: Mapping[str, Any]) -> str | list[int]:
    """The prompt of a command: its text, or the ids of a conversation."""
    if not body["chat"]:
        return str(body["prompt"])
    template = _template(model, body["template_arg"] or [])
    head = [] if body["system"] is None else [Message("system", body["system"])]
    return template.encode(generator.tokenizer, [*head, Message("user", body["prompt"])])[0]


def _score(call: Call, model: Served, borrowed: Borrowed) -> Records:
    """The ids of a text, their pieces and the number of bytes that they stand for; then their log-probabilities in parts."""
    text, tokenizer = call.body["text"], model.tokenizer
    ids = tokenizer.encode(text)
    pieces = [tokenizer.decode([token], special=True) for token in ids[1:]] if call.body["tokens"] else []
    yield {"ids": ids, "pieces": pieces, "size": scored_bytes(tokenizer, text, ids) if ids else 0}

    def read(window: Sequence[int]) -> npt.NDArray[np.float32]:
        parts = borrowed.by_turns(probability_parts(borrowed.executor, window))
        return np.array([number for part in parts for number in part], dtype=np.float32)

    for part in windowed(ids, model.checkpoint.spec.context, read) if len(ids) > 1 else ():
        yield {"logprobs": part.tolist()}


def _translate(call: Call, _: Served, borrowed: Borrowed) -> Records:
    """The translation of each line."""
    body = call.body
    resolved = borrowed.resolve(body["values"], body["environment"])
    for found in Translator(borrowed, resolved, source=body["from"], target=body["to"]).translate(body["lines"]):
        yield {"text": found.text, "left_out": found.left_out}


def _chat(call: Call, model: Served, borrowed: Borrowed) -> Records:
    """The events of an answer, then the state of the conversation after it.

    Without a text, it only checks the system message and counts the tokens of the conversation.
    """
    body = call.body
    template = _template(model, body["template_arg"] or [])
    conversation = Conversation(borrowed, template, borrowed.resolve(body["values"], body["environment"]))
    conversation.state = body["state"]
    if body["text"] is None:
        check_system(template, body["system"])
        yield {"tokens": conversation.tokens()}
        return
    try:
        for event in conversation.reply(body["text"]):
            call.service.metrics.heard(event)
            yield event_record(event)
    except TgenError as error:
        yield {"state": conversation.state}
        raise error
    yield {"state": conversation.state}


async def embed(call: Call, model: Served) -> AsyncRecords:
    """The number of tokens of each line, and its vector."""
    encoder, body = model.encoding(), call.body
    maker = embedder(model.checkpoint, model.tokenizer, body["pooling"], body["normalize"], body["prompt_name"])
    rows = await asyncio.to_thread(lambda: list(map(maker.ids, body["lines"])))
    vectors = await asyncio.wrap_future(call.service.worker.call(lambda: maker.vectors(encoder, rows)))
    yield {
        "longest": maker.longest,
        "counts": list(map(len, rows)),
        "vectors": [[round(float(x), 7) for x in vector] for vector in vectors],
    }


def _as_task(task: Callable[[Call, Served, Borrowed], Records]) -> Work:
    """The work for a task that runs in a thread."""

    async def work(call: Call, model: Served) -> AsyncRecords:
        borrowed = Borrowed(call.service.worker, model.writing())
        identity = str(call.body.get("id"))
        call.service.cancels[identity] = borrowed.stopped.set
        try:
            async with aclosing(in_thread(task(call, model, borrowed), borrowed.gone)) as records:
                async for record in records:
                    yield record
        finally:
            call.service.cancels.pop(identity, None)

    return work


WORK: dict[str, Work] = {
    "generate": generate,
    "batch": batch,
    "embed": embed,
    "score": _as_task(_score),
    "translate": _as_task(_translate),
    "chat": _as_task(_chat),
}
QUICK = {"describe": describe, "cancel": cancel}
