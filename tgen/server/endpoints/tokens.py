"""/tokenize, /detokenize and /pieces: the ids of a text or a conversation, the text of ids, and each token of a text by itself."""

from __future__ import annotations

import asyncio

from tgen.errors import UsageError
from tgen.server.calls import Answer, Call
from tgen.server.models import Served
from tgen.text.chat import read_messages
from tgen.wire.inspection import piece_records
from tgen.wire.requests import take_flag, take_texts


async def tokenize(call: Call) -> Answer:
    """The ids of `prompt` or `content`, a text, or of `messages`. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    body = call.body
    special = take_flag({"add_special_tokens": True, **body}, "add_special_tokens")
    if "content" in body and "prompt" not in body:
        body["prompt"] = body.pop("content")
    if "content" in body or not isinstance(body.get("prompt", ""), str):
        raise UsageError("it must have a prompt, which is a text, or messages, and not both")
    ids = await take_ids(call, model, special=special)
    return {"tokens": ids, "count": len(ids), "max_model_len": model.checkpoint.spec.context}


async def take_ids(call: Call, model: Served, *, special: bool = True) -> list[int]:
    """Take the ids of `prompt`, a text or ids, or of `messages` out of a body. Raises TgenError."""
    body = call.body
    if ("prompt" in body) == ("messages" in body):
        raise UsageError("it must have a prompt, which is a text, or messages, and not both")
    if "messages" in body:
        messages = read_messages(body.pop("messages"))
        return (await asyncio.to_thread(lambda: model.template.encode(model.tokenizer, messages)))[0]
    [prompt] = take_texts(body, "prompt", 1)
    if isinstance(prompt, str):
        return await asyncio.to_thread(lambda: model.tokenizer.encode(prompt, special=special))
    return check_ids(model, "prompt", prompt)


def check_ids(model: Served, key: str, ids: list[int]) -> list[int]:
    """The ids. Raises UsageError for one that the model does not have."""
    vocab = model.checkpoint.spec.vocab
    if not all(0 <= token < vocab for token in ids):
        raise UsageError(f"{key} must be a list of ids below {vocab}")
    return ids


async def detokenize(call: Call) -> Answer:
    """The text of `tokens`, special ones included. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    tokens = [] if call.body.get("tokens") == [] else take_texts(call.body, "tokens", 1)[0]
    if isinstance(tokens, str):
        raise UsageError(f"tokens must be a list of ids below {model.checkpoint.spec.vocab}")
    text = model.tokenizer.decode(check_ids(model, "tokens", tokens), special=True)
    return {"prompt": text, "content": text}


async def pieces(call: Call) -> Answer:
    """Each token of `prompt`, a text or ids, or of `messages`: id, spelling, text, bytes. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    ids = await take_ids(call, model)
    return {"pieces": await asyncio.to_thread(piece_records, model.tokenizer, ids)}
