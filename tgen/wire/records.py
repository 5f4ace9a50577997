"""Turns events and errors into JSON objects with OpenAI's field names.

A record depends on its arguments alone, not on the day or the machine: the same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tgen.errors import TgenError, shortened
from tgen.events import Event, Finished, Note, Piece, Started, Token, TokenScore
from tgen.wire.requests import OPTIONS, Form, JsonRequest, LineKey

OBJECTS: dict[Form, str] = {"completion": "text_completion", "chat": "chat.completion"}


def completion_object(model: str, events: Sequence[Event], prefix: str = "") -> dict[str, Any]:
    """The completion of a prompt; `prefix` is put before each text (`--echo`)."""

    def choice(finished: Finished, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = prefix + "".join(piece.text for piece in pieces)
        record = {"index": finished.index, "text": text, "finish_reason": finished.reason}
        tokens = [token for piece in pieces for token in piece.tokens]
        return record | ({"tokens": _ids(tokens), "logprobs": _logprobs(tokens, _offsets(pieces, len(prefix)))} if tokens else {})

    return _answer(model, events, choice)


def chat_object(model: str, events: Sequence[Event]) -> dict[str, Any]:
    """The answer to a conversation, whose texts are messages."""

    def choice(finished: Finished, pieces: Sequence[Piece]) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        scored = {"tokens": _ids(tokens), "logprobs": {"content": [_scored(token) for token in tokens]}} if tokens else {}
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        return {"index": finished.index, "finish_reason": finished.reason, **scored, "message": message}

    return _answer(model, events, choice)


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
    """The record of a line that was answered, in the form it was asked in."""
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
    hint = {} if error.hint is None else {"hint": _in_json(error.hint)}
    said = {"code": error.type, "message": shortened(_in_json(error.message)), **hint}
    if key.enveloped:
        return {"line": key.number, "id": f"line-{key.number}", "custom_id": key.identity, "response": None, "error": said}
    return {"line": key.number, **_id(key), "error": said}


def _answer(model: str, events: Sequence[Event], choice: Callable[[Finished, Sequence[Piece]], dict[str, Any]]) -> dict[str, Any]:
    """The object around the choices; `choice` makes one of how a sample ended and of its pieces."""
    started = next((event for event in events if isinstance(event, Started)), Started(0, 0, 0))
    notes = [event.text for event in events if isinstance(event, Note)]
    pieces: dict[int, list[Piece]] = {}
    for event in events:
        if isinstance(event, Piece):
            pieces.setdefault(event.index, []).append(event)
    finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.index)
    written, cached = token_count(events), started.cached_tokens
    return {
        "model": model,
        "choices": [choice(event, pieces.get(event.index, [])) for event in finished],
        "usage": {
            "prompt_tokens": started.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": started.prompt_tokens + written,
            **({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}),
        },
        "seed": started.seed,
        **({"warnings": notes} if notes else {}),
    }


def _logprobs(tokens: Sequence[Token], offsets: Iterator[int]) -> dict[str, Any]:
    """A completion's log-probabilities: OpenAI's four lists, then two of tgen: bytes, and alternatives that may share a text."""
    return {
        "tokens": [token.score.text for token in tokens],
        "token_logprobs": [token.score.logprob for token in tokens],
        "top_logprobs": [_by_text(token.alternatives) for token in tokens],
        "text_offset": list(offsets),
        "token_bytes": [_bytes(token.score) for token in tokens],
        "top_tokens": [[_score(score) for score in token.alternatives] for token in tokens],
    }


def _by_text(alternatives: Sequence[TokenScore]) -> dict[str, float]:
    """Log-probabilities by text, highest first; of tokens with the same text the likeliest counts."""
    found: dict[str, float] = {}
    for score in alternatives:
        found.setdefault(score.text, score.logprob)
    return found


def _offsets(pieces: Sequence[Piece], start: int) -> Iterator[int]:
    """Where each token's text begins, in characters. A token that is part of a character begins where the character does.

    Each token is looked for in the text. Where it is not there, as a special token, the next piece tells how far the text has come; but a
    piece may begin with the text of earlier tokens, held back because it could have become a stop string.
    """
    text = "".join(piece.text for piece in pieces)
    place = begun = 0
    for piece in pieces:
        place = max(place, begun)
        held = b""
        for token in piece.tokens:
            yield start + place
            held += token.score.text.encode() if token.score.bytes is None else token.score.bytes
            try:
                whole = held.decode()
            except UnicodeDecodeError:  # the rest of the character is still to come
                continue
            held = b""
            for word in (whole, f" {whole}", whole.removeprefix(" ")):  # some tokenizers drop a space at the beginning of what they decode
                if text.startswith(word, place):
                    place += len(word)
                    break
        begun += len(piece.text)


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


def _in_json(message: str) -> str:
    """A message about options, with their names as a line of JSON spells them: --top-k is top_k."""

    def spelled(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return name if name in OPTIONS else found[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", spelled, message)
