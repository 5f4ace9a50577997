"""The ids of a text or a conversation, the text of ids, each token of a text by itself, and a conversation as its template writes it.

These are /tokenize, /detokenize, /pieces and /apply-template.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tgen.errors import UsageError
from tgen.server.calls import Answer, Call
from tgen.server.models import Served
from tgen.text.chat import ChatTemplate, Message, read_messages
from tgen.wire.inspection import piece_records
from tgen.wire.requests import take_ending, take_flag, take_texts
from tgen.wire.tools import take_tools


async def tokenize(call: Call) -> Answer:
    """The ids of `prompt` or `content`, a text, or of `messages`. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    body = call.body
    if "content" in body and "prompt" not in body:  # llama.cpp's names, and its default; the others are vLLM's
        body["prompt"] = body.pop("content")
        body["add_special_tokens"] = take_flag(body, "add_special")
        if not take_flag({"parse_special": True, **body}, "parse_special"):
            raise UsageError("'parse_special' cannot be honoured", "leave it out")
        body.pop("parse_special", None)
    special = take_flag({"add_special_tokens": True, **body}, "add_special_tokens")
    named = body.pop("add_special_tokens", None) is not None
    spelled, pieces = take_flag(body, "return_token_strs"), take_flag(body, "with_pieces")
    if not isinstance(body.get("prompt", ""), str):
        raise UsageError("it must have a prompt, which is a text, or messages, and not both")
    if "messages" in body and named and special:
        raise UsageError("add_special_tokens cannot be honoured beside messages: their template writes them", "leave it out")
    ids = await take_ids(call, model, special=special)
    if body:
        raise UsageError(f"{min(body)!r} is not known", "a request has prompt or messages, model, add_special_tokens and return_token_strs")
    found = piece_records(model.tokenizer, ids) if spelled or pieces else []
    strings = {"token_strs": [piece["piece"] for piece in found]} if spelled else {}
    tokens: list[Any] = [{"id": piece["id"], "piece": piece["text"]} for piece in found] if pieces else ids
    return {"tokens": tokens, "count": len(ids), "max_model_len": model.checkpoint.spec.context, **strings}


async def take_ids(call: Call, model: Served, *, special: bool = True) -> list[int]:
    """Take the ids of `prompt`, a text or ids, or of `messages` out of a body. Raises TgenError."""
    body = call.body
    if ("prompt" in body) == ("messages" in body):
        raise UsageError("it must have a prompt, which is a text, or messages, and not both")
    if "messages" in body:
        template, messages = _take_conversation(body, model)
        return (await asyncio.to_thread(lambda: template.encode(model.tokenizer, messages)))[0]
    [prompt] = take_texts(body, "prompt", 1)
    if isinstance(prompt, str):
        return await asyncio.to_thread(lambda: model.tokenizer.encode(prompt, special=special))
    return check_ids(model, "prompt", prompt)


def _take_conversation(body: dict[str, Any], model: Served) -> tuple[ChatTemplate, list[Message]]:
    """Take `messages`, and what a template gets beside them, out of a body. Raises TgenError."""
    tools, arguments, messages = take_tools(body), body.pop("chat_template_kwargs", None), read_messages(body.pop("messages", None))
    if not isinstance(arguments, dict | None):
        raise UsageError("chat_template_kwargs must be an object", 'for example {"enable_thinking": false}')
    template = model.template.with_tools(tools.definitions)
    return replace(template.with_arguments(arguments) if arguments else template, ending=take_ending(body)), messages


async def apply_template(call: Call) -> Answer:
    """The text that the model would read for `messages`. Raises TgenError, HttpError."""
    template, messages = _take_conversation(call.body, call.service.models.find(call.body.pop("model", None)))
    if call.body:
        raise UsageError(f"{min(call.body)!r} is not known", "a request has messages, tools, chat_template_kwargs and model")
    return {"prompt": (await asyncio.to_thread(lambda: template.render(messages)))[0]}


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
