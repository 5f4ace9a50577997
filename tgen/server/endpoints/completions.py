"""/v1/completions: continues prompts, and scores their tokens for evaluation harnesses (echo, logprobs, max_tokens 0)."""

from __future__ import annotations

from tgen.errors import UsageError
from tgen.server.calls import Answer, Call
from tgen.server.endpoints.generating import Texts, head, make_jobs, resolved_options, take_streaming
from tgen.wire.chunks import CompletionChunks
from tgen.wire.records import OBJECTS, completion_object
from tgen.wire.requests import read_body, take_flag, take_texts

MOST_PROMPTS, MOST_TEXTS = 2048, 4096


async def complete(call: Call) -> Answer:
    """Answer a request for completions. Raises TgenError, HttpError."""
    body = call.body
    model = await call.model()
    engine = model.writing()
    streaming = take_streaming(body)
    prompts = take_texts(body, "prompt", MOST_PROMPTS)
    echo = take_flag(body, "echo")
    write = not (echo and type(body.get("max_tokens")) is int and body["max_tokens"] == 0)
    if not write:
        del body["max_tokens"]
    if body.get("best_of") == body.get("n", 1):
        body.pop("best_of", None)
    resolved = resolved_options(call, engine, read_body("completion", {**body, "prompt": ""}))
    if len(prompts) * resolved.options.samples > MOST_TEXTS:
        message = f"prompt and n ask for {len(prompts) * resolved.options.samples:,} texts, and may ask for {MOST_TEXTS:,}"
        raise UsageError(message, "ask for fewer at once")
    jobs = await make_jobs(call, engine, prompts, resolved, scored=echo, write=write)
    decode = engine.generator.tokenizer.decode
    shown = [text if isinstance(text, str) else decode(list(text), special=True) for text in prompts] if echo else None
    texts = Texts(call, engine, jobs, resolved.options.samples, shown)
    start = head(call, "cmpl-", model.name, streaming)
    if streaming.wanted:
        return texts.chunked(CompletionChunks(start), streaming)
    return {**start, "object": OBJECTS["completion"], **completion_object(model.name, await texts.collected())}
