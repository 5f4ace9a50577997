"""Errors as HTTP answers in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tgen.errors import CapacityError, CheckpointError, MemoryLimitError, TgenError, UsageError, shortened
from tgen.wire.records import INSPECTED, in_json
from tgen.wire.requests import ALIASES, GUIDED, OPTIONS

INVALID, SERVER = "invalid_request_error", "server_error"
# Words at the beginning of a message that name a key of the body.
QUOTED, PARAMETER = re.compile(r"'(\w+)' (?:is not known|cannot be honoured)"), re.compile(r"([a-z_]+)\b")
KEYS = (
    OPTIONS | ALIASES.keys() | GUIDED.keys() | INSPECTED
    | frozenset(
        "prompt messages echo stream stream_options model tools tool_choice parallel_tool_calls response_format logprobs top_logprobs "
        "best_of suffix logit_bias input encoding_format dimensions tokens text truncation chat_template_kwargs structured_outputs "
        "continue_final_message add_generation_prompt add_special_tokens top".split()
    )
)  # fmt: skip


@dataclass
class HttpError(Exception):
    """An error of HTTP itself, such as a wrong path or key; it is no TgenError."""

    status: int
    message: str
    type: str = INVALID
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def as_http(error: Exception) -> HttpError:
    """The answer for an error."""
    if isinstance(error, HttpError):
        return error
    if not isinstance(error, TgenError):
        return HttpError(500, f"unexpected {type(error).__name__}: {error}", SERVER)
    said = f"{error.message}; {error.hint}" if error.hint else error.message
    message = shortened(in_json(said))
    if isinstance(error, CapacityError):
        return HttpError(400, message, INVALID, "context_length_exceeded", "prompt")
    if isinstance(error, UsageError):
        return HttpError(400, message, INVALID, None, _parameter(message))
    if isinstance(error, MemoryLimitError):
        return HttpError(503, message, SERVER, error.type, None, {"Retry-After": "5"})
    return HttpError(500, message, SERVER, error.type if isinstance(error, CheckpointError) else None)


def error_body(error: HttpError) -> dict[str, Any]:
    """The body of the answer."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def _parameter(message: str) -> str | None:
    if found := QUOTED.match(message):
        return found[1]
    found = PARAMETER.match(message)
    return found[1] if found and found[1] in KEYS else None
