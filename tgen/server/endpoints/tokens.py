"""/tokenize and /detokenize: the ids of a text or a conversation, and the text of ids."""

from __future__ import annotations

import asyncio

from tgen.errors import UsageError
from tgen.server.calls import Answer, Call
from tgen.text.chat import read_messages
from tgen.wire.requests import take_flag, take_texts


async def tokenize(call: Call) -> Answer:
    """The ids of `prompt` or `content`, a text, or of `messages`. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    body = call.body
    special = take_flag({"add_special_tokens": True, **body}, "add_special_tokens")
    given = [key for key in ("prompt", "content", "messages") if key in body]
    if len(given) != 1 or (given != ["messages"] and not isinstance(body[given[0]], str)):
        raise UsageError("it must have a prompt, which is a text, or messages, and not both")
    if given == ["messages"]:
        messages = read_messages(body["messages"])
        [ids] = await asyncio.to_thread(lambda: model.template.encode(model.tokenizer, messages))
    else:
        ids = await asyncio.to_thread(lambda: model.tokenizer.encode(body[given[0]], special=special))
    return {"tokens": ids, "count": len(ids), "max_model_len": model.checkpoint.spec.context}


async def detokenize(call: Call) -> Answer:
    """The text of `tokens`, special ones included. Raises TgenError, HttpError."""
    model = call.service.models.find(call.body.pop("model", None))
    tokens = [] if call.body.get("tokens") == [] else take_texts(call.body, "tokens", 1)[0]
    if isinstance(tokens, str) or not all(0 <= token < model.checkpoint.spec.vocab for token in tokens):
        raise UsageError(f"tokens must be a list of ids below {model.checkpoint.spec.vocab}")
    text = model.tokenizer.decode(tokens, special=True)
    return {"prompt": text, "content": text}
