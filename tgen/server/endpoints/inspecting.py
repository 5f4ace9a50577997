"""/explain, /attention and /settings: how each token was drawn, where each token looks, and what a request may set.

The page at / is made of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from collections.abc import Generator as Yields
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, get_args

from tgen.checkpoint.generation import read_generation
from tgen.errors import UsageError
from tgen.options import AttentionKind, Resolved, resolve
from tgen.server.calls import Answer, Call
from tgen.server.endpoints.borrowed import Borrowed, in_thread
from tgen.server.endpoints.generating import DONE, resolved_options
from tgen.server.endpoints.tokens import check_ids, take_ids
from tgen.server.sending import sse
from tgen.tasks.attending import KINDS, attend, check_length, checked_kind
from tgen.tasks.explaining import Step, explain
from tgen.text.chat import find_template
from tgen.wire.events import event_record
from tgen.wire.inspection import map_record, option_records
from tgen.wire.requests import merged, read_body, take_flag, take_number, take_texts

Records = Yields[dict[str, Any], None, None]
CANDIDATES, MOST_CANDIDATES = 12, 200
# A map has a number for each pair of tokens.
MOST_SHOWN = 512
# These options are fixed: /explain writes one text without beams, and each token comes with the text that it completes.
ALONE = {"samples": 1, "num_beams": 1, "logprobs": 0}


async def explained(call: Call) -> Answer:
    """Continue `prompt` or `messages` as a stream of events: the ids of the prompt, then each token's Step before the text it leads to.

    A Step has the `top` best candidates. Other keys are those of /v1/completions that concern one text. Raises TgenError, HttpError.
    """
    body = call.body
    top = take_number(body, "top", 1, MOST_CANDIDATES)
    take_flag(body, "stream")
    model = await call.model()
    engine = model.writing()
    ids = await take_ids(call, model)
    request = read_body("completion", {**body, "prompt": ""})
    if unfit := sorted(ALONE.keys() & request.options.keys()):
        raise UsageError(f"{unfit[0]} cannot be honoured: one text is explained, by every token", "leave it out")
    resolved = resolved_options(call, engine, request, ALONE)
    borrowed = Borrowed(call.service.worker, engine)
    records = in_thread(_explained(call, borrowed, ids, resolved, top or CANDIDATES), borrowed.gone)
    await call.stack.enter_async_context(aclosing(records))
    return _stream(await anext(records), records)  # an error before the first event gets its own status, outside the stream


def _explained(call: Call, borrowed: Borrowed, ids: Sequence[int], resolved: Resolved, top: int) -> Records:
    """The records of a text's events and steps."""
    start = borrowed.limits.start_token
    ids = ids or [start] if start is not None else ids
    begun = False
    for event in explain(borrowed, ids, resolved, top):
        if not begun:
            yield {"event": "Prompt", "ids": list(ids)}
            begun = True
        if isinstance(event, Step):
            yield {"event": "Step", **asdict(event)}
        else:
            call.service.metrics.heard(event)
            yield event_record(event)


async def _stream(first: dict[str, Any], rest: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    yield sse(first)
    async for record in rest:
        yield sse(record)
    yield DONE


async def attention(call: Call) -> Answer:
    """The attention map of a `layer` and a `head` (null: the mean of all) over `prompt` or `messages`.

    An encoder-decoder has three `kind`s, and reads `answer`. Raises TgenError, HttpError.
    """
    body = call.body
    kind = body.pop("kind", None)
    if body.get("answer") == []:
        body["answer"] = ""
    answered = "answer" in body
    if kind not in (None, *get_args(AttentionKind)):
        raise UsageError(f"kind must be one of {', '.join(get_args(AttentionKind))}")
    layer, head = (take_number(body, key, -1000, 1000) for key in ("layer", "head"))
    model = await call.model()
    checkpoint = model.checkpoint
    shown = checked_kind(checkpoint, kind, answered=answered)
    ids = await take_ids(call, model)
    [answer] = take_texts(body, "answer", 1) if answered else [[]]
    written = model.tokenizer.encode(answer, special=False) if isinstance(answer, str) else check_ids(model, "answer", answer)
    if body:
        raise UsageError(f"{min(body)!r} is not known", "a request has prompt or messages, model, kind, layer, head and answer")
    check_length(checkpoint, "text", len(ids))
    if max(len(ids), len(written)) > MOST_SHOWN:
        raise UsageError(f"a map shows at most {MOST_SHOWN} tokens, and there are {max(len(ids), len(written))}", "shorten the text")
    modules = await call.service.models.recordable(model)
    future = call.service.worker.call(lambda: attend(checkpoint, model.tokenizer, modules, ids, written))
    maps = await asyncio.wrap_future(future)
    heat = maps.selected(shown, -1 if layer is None else layer, head)
    layers, heads = maps.size(shown)
    return {**await asyncio.to_thread(map_record, heat), "kind": shown, "layers": layers, "heads": heads}


async def settings(call: Call) -> Answer:
    """The kind of a model, the maps that it has, and the options that a request for a text may set. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    checkpoint = model.checkpoint
    defaults = await asyncio.to_thread(read_generation, checkpoint)
    options = {**merged(call.service.options, {}), **ALONE}
    return {
        "model": model.name,
        "kind": checkpoint.spec.kind,
        "context": checkpoint.spec.context,
        "chat": await asyncio.to_thread(find_template, checkpoint.texts) is not None,
        "maps": KINDS[checkpoint.spec.kind],
        "options": option_records(resolve(options, call.service.environment, defaults.options)),
    }
