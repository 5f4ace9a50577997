"""Turns events and errors into JSON objects with OpenAI's field names.

A record depends on its arguments alone, not on the day or the machine: the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tgen.errors import TgenError, shortened
from tgen.events import Event, Finished, Note, Piece, Started, Token, TokenScore
from tgen.text.call_forms import Call
from tgen.wire.requests import OPTIONS, Form, JsonRequest, LineKey

# The keys of requests for attention maps that are options of `tgen attention`, too.
INSPECTED = frozenset({"kind", "layer", "head", "answer"})
OBJECTS: dict[Form, str] = {"completion": "text_completion", "chat": "chat.completion"}
# Takes the end of a sample and its text, and returns the text of the message and the records of its calls.
Split = Callable[[Finished, str], tuple[str, list[dict[str, Any]]]]


def completion_object(model: str, events: Sequence[Event], prefix: str = "") -> dict[str, Any]:
    """The completion of a prompt; `prefix` is put before each text (`--echo`)."""

    def choice(finished: Finished, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = prefix + "".join(piece.text for piece in pieces)
        record = {"index": finished.index, "text": text, "finish_reason": finish_reason(finished)}
        tokens = [token for piece in pieces for token in piece.tokens]
        return record | ({"tokens": _ids(tokens), "logprobs": completion_logprobs(tokens, _offsets(pieces, len(prefix)))} if tokens else {})

    return _answer(model, events, choice)


def chat_object(model: str, events: Sequence[Event], split: Split | None = None) -> dict[str, Any]:
    """The answer to a conversation, whose texts are messages; `split` separates the calls of functions from the text."""

    def choice(finished: Finished, pieces: Sequence[Piece]) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        scored = {"tokens": _ids(tokens), "logprobs": chat_logprobs(tokens)} if tokens else {}
        text = "".join(piece.text for piece in pieces)
        said, calls = split(finished, text) if split else (text, [])
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if calls:
            message |= {"content": said or None, "tool_calls": calls}
        return {"index": finished.index, "finish_reason": "tool_calls" if calls else finish_reason(finished), **scored, "message": message}

    return _answer(model, events, choice)


def call_record(call: Call, answer: str, index: int, number: int) -> dict[str, Any]:
    """A call in the choice `index` of the answer with an id. The call's own id has nine letters and digits, as Mistral's templates want."""
    identity = hashlib.sha256(f"{answer} {index} {number}".encode()).hexdigest()[:9]
    return {"id": identity, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    """The log-probabilities of a message's tokens."""
    return {"content": [_scored(token) for token in tokens]}


def finish_reason(finished: Finished) -> str:
    """Why a text ended, in OpenAI's words, which have none for a limit of time."""
    return "length" if finished.reason == "time" else finished.reason


def timings(events: Sequence[Event]) -> dict[str, Any]:
    """How long a generation took."""
    finished = [event for event in events if isinstance(event, Finished)]
    seconds = max((event.decode_seconds for event in finished), default=0.0)
    return {
        "prefill_seconds": round(max((event.prefill_seconds for event in finished), default=0.0), 6),
        "decode_seconds": round(seconds, 6),
        "tokens_per_second": round(token_count(events) / seconds, 2) if seconds else None,
    }


def token_count(events: Sequence[Event]) -> int:
    """How many tokens were written, in all samples."""
    return sum(event.token_count for event in events if isinstance(event, Finished))


def answer_record(key: LineKey, request: JsonRequest, model: str, events: Sequence[Event]) -> dict[str, Any]:
    """The record of a line that was answered, in the form of the request."""
    if request.messages is not None:
        answer = chat_object(model, events)
    else:
        answer = completion_object(model, events, request.prompt if request.echo and isinstance(request.prompt, str) else "")
    if request.form == "tgen":
        return {"line": key.number, **_id(key), **answer}
    body = {"id": f"cmpl-{key.number}", "object": OBJECTS[request.form], "created": 0, **answer}
    response = {"status_code": 200, "request_id": f"line-{key.number}", "body": body}
    return {"line": key.number, "id": f"line-{key.number}", "custom_id": key.identity, "response": response, "error": None}


def error_record(key: LineKey, error: TgenError) -> dict[str, Any]:
    """The record of a line that was not answered."""
    hint = {} if error.hint is None else {"hint": in_json(error.hint)}
    said = {"code": error.type, "message": shortened(in_json(error.message)), **hint}
    if key.enveloped:
        return {"line": key.number, "id": f"line-{key.number}", "custom_id": key.identity, "response": None, "error": said}
    return {"line": key.number, **_id(key), "error": said}


def _answer(model: str, events: Sequence[Event], choice: Callable[[Finished, Sequence[Piece]], dict[str, Any]]) -> dict[str, Any]:
    """The object around the choices; `choice` makes a choice from the end of a sample and its pieces."""
    seed = next((event.seed for event in events if isinstance(event, Started)), 0)
    notes = [event.text for event in events if isinstance(event, Note)]
    pieces: dict[int, list[Piece]] = {}
    for event in events:
        if isinstance(event, Piece):
            pieces.setdefault(event.index, []).append(event)
    finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.index)
    return {
        "model": model,
        "choices": [choice(event, pieces.get(event.index, [])) for event in finished],
        "usage": usage(events),
        "seed": seed,
        **({"warnings": notes} if notes else {}),
    }


def usage(events: Sequence[Event]) -> dict[str, Any]:
    """How many tokens were read and written, for all prompts and samples."""
    started = [event for event in events if isinstance(event, Started)]
    read, written = sum(event.prompt_tokens for event in started), token_count(events)
    cached = sum(event.cached_tokens for event in started)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        **({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}),
    }


def completion_logprobs(tokens: Sequence[Token], offsets: Iterable[int]) -> dict[str, Any]:
    """A completion's log-probabilities: OpenAI's four lists, then tgen's two, with bytes, and with alternatives that may share a text."""
    return {
        "tokens": [token.score.text for token in tokens],
        "token_logprobs": [_number(token.score.logprob) for token in tokens],
        "top_logprobs": [None if math.isnan(token.score.logprob) else _by_text(token.alternatives) for token in tokens],
        "text_offset": list(offsets),
        "token_bytes": [_bytes(token.score) for token in tokens],
        "top_tokens": [[_score(score) for score in token.alternatives] for token in tokens],
    }


def _number(logprob: float) -> float | None:
    """A log-probability in JSON; null for the first token of a prompt, which nothing predicts."""
    return None if math.isnan(logprob) else logprob


def _by_text(alternatives: Sequence[TokenScore]) -> dict[str, float]:
    """Log-probabilities by text, the highest first. If several tokens have the same text, the likeliest counts."""
    found: dict[str, float] = {}
    for score in alternatives:
        found.setdefault(score.text, score.logprob)
    return found


def _offsets(pieces: Sequence[Piece], start: int) -> Iterator[int]:
    """Where each token's text begins, in characters. A token that is part of a character begins where the character does.

    This looks for each token in the text. If the text lacks a token, such as a special one, the next piece tells how far the text has come.
    But a piece may begin with the text of earlier tokens, which was held back because it could have become a stop string.
    """
    offsets = Offsets(start, "".join(piece.text for piece in pieces))
    for piece in pieces:
        yield from offsets.add(piece)


class Offsets:
    """Finds where tokens begin in a text that comes in pieces. If it knows the `whole` text, it also finds text that was held back."""

    def __init__(self, start: int = 0, whole: str | None = None) -> None:
        self._start = start
        self._text = whole or ""
        self._is_whole = whole is not None
        self._place = self._begun = 0

    def add(self, piece: Piece) -> Iterator[int]:
        """The offsets of a piece's tokens."""
        self._place = max(self._place, self._begun)
        self._begun += len(piece.text)
        if not self._is_whole:
            self._text += piece.text
        held = b""
        for token in piece.tokens:
            yield self._start + self._place
            held += token.score.text.encode() if token.score.bytes is None else token.score.bytes
            try:
                whole = held.decode()
            except UnicodeDecodeError:  # the rest of the character is still to come
                continue
            held = b""
            for word in (whole, f" {whole}", whole.removeprefix(" ")):  # some tokenizers drop a space at the beginning of what they decode
                if self._text.startswith(word, self._place):
                    self._place += len(word)
                    break


def _scored(token: Token) -> dict[str, Any]:
    return {**_score(token.score), "top_logprobs": [_score(score) for score in token.alternatives]}


def _score(score: TokenScore) -> dict[str, Any]:
    return {"token": score.text, "id": score.id, "logprob": score.logprob, "bytes": _bytes(score)}


def _bytes(score: TokenScore) -> list[int] | None:
    return None if score.bytes is None else list(score.bytes)


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token.score.id for token in tokens]


def _id(key: LineKey) -> dict[str, Any]:
    return {} if key.identity is None else {"id": key.identity}


def in_json(message: str) -> str:
    """A message about options, with the names that they have in JSON: --top-k becomes top_k."""
    known = OPTIONS | INSPECTED

    def spelled(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return name if name in known else found[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", spelled, message)
