"""One line of JSON as a request: tgen's own form, and the form of OpenAI's batches. Knows names and types, no model.

{"prompt": "Once", "id": 7, "max_new_tokens": 20}                  a prompt and any of `GenerationOptions`
{"messages": [{"role": "user", "content": "Hello"}], "id": 8}      the same for a chat model
{"custom_id": "9", "url": "/v1/completions", "body": {...}}        what a server would be sent
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tgen.constraints import NAMES as CONSTRAINTS
from tgen.errors import TgenError, UsageError, shortened
from tgen.options import GenerationOptions
from tgen.text.chat import Message, read_messages

Form = Literal["tgen", "completion", "chat"]
URLS: dict[str, Form] = {"/v1/completions": "completion", "/v1/chat/completions": "chat"}
OPTIONS = ({option.name for option in fields(GenerationOptions)} - {"constraint"}) | set(CONSTRAINTS)
ALIASES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "temp": "temperature",
    "repeat_penalty": "repetition_penalty",
    "n": "samples",
    "num_return_sequences": "samples",
}
CODES = {2: "usage", 3: "model", 4: "memory", 5: "context"}  # of errors, by the exit code that each is alone
# OpenAI's keys that change nothing at these values.
NEUTRAL: dict[str, Any] = {"best_of": 1, "logit_bias": {}, "suffix": "", "stream": False, "n": 1}
# What only tells a server whom to ask and whom to charge; the model is the one that was loaded.
UNHEEDED = frozenset({"model", "user", "metadata", "store", "service_tier"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a line asks for. `id` comes back with the answer; exactly one of `prompt` and `messages` is there."""

    form: Form = "tgen"
    id: Any = None
    prompt: str | list[int] | None = None
    messages: list[Message] | None = None
    echo: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    template_arguments: dict[str, Any] = field(default_factory=dict)


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises UsageError, saying what is wrong."""
    try:
        text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"it is not UTF-8 at byte {error.start}", "convert it, for example with iconv -t UTF-8") from error
    except UnicodeEncodeError as error:
        raise UsageError("it holds half a surrogate pair, which is no character", "correct it") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is not JSON: {error}", 'one object a line, such as {"prompt": "Once upon a time"}') from error
    if not isinstance(value, dict):
        raise UsageError(f"it is not a JSON object but {_kind(value)}", 'one object a line, such as {"prompt": "Once upon a time"}')
    return value


def identity(value: Mapping[str, Any]) -> Any:
    """What tells a line from the others, for whoever wrote it; None if nothing does."""
    return value.get("custom_id", value.get("id"))


def read_request(value: Mapping[str, Any]) -> Asked:
    """What an object asks for. Raises UsageError for what is not known, not honoured or of the wrong type."""
    if "body" not in value:
        return _read("tgen", identity(value), {key: item for key, item in value.items() if key not in ("id", "custom_id")})
    body, method = value["body"], value.get("method", "POST")
    if not isinstance(body, dict):
        raise UsageError(f"body must be a JSON object, not {_kind(body)}")
    if unknown := sorted(value.keys() - {"custom_id", "method", "url", "body"}):
        raise UsageError(f"{unknown[0]!r} is not known beside a body", "a line has custom_id, method, url and body")
    url = value.get("url", "/v1/chat/completions" if "messages" in body else "/v1/completions")
    if method != "POST" or not isinstance(url, str) or url not in URLS:
        raise UsageError(f"there is no {method} {url}", f"there is POST {' and POST '.join(URLS)}")
    kept = {key: item for key, item in body.items() if key not in UNHEEDED and (key not in NEUTRAL or item != NEUTRAL[key])}
    if isinstance(kept.get("prompt"), list) and len(kept["prompt"]) == 1 and isinstance(kept["prompt"][0], str):
        kept["prompt"] = kept["prompt"][0]
    return _read(URLS[url], value.get("custom_id"), kept)


def _read(form: Form, identity: Any, value: dict[str, Any]) -> Asked:
    prompt, messages, echo = (value.pop(key, None) for key in ("prompt", "messages", "echo"))
    wanted = {"tgen": "a prompt or messages, and not both", "completion": "a prompt, and no messages", "chat": "messages, and no prompt"}
    if (prompt is None) == (messages is None) or (prompt is None and form == "completion") or (messages is None and form == "chat"):
        raise UsageError(f"it must have {wanted[form]}")
    if messages == []:
        raise UsageError("messages must not be empty")
    if prompt is not None and not isinstance(prompt, str) and not _is_ids(prompt):
        other = "a list of something else" if isinstance(prompt, list) else _kind(prompt)
        raise UsageError(f"prompt must be a text or a list of token ids, not {other}")
    if not isinstance(echo, bool | None) or (echo and not isinstance(prompt, str)):
        raise UsageError("echo must be true or false, and needs a prompt that is a text")
    arguments = value.pop("chat_template_kwargs", None)
    if not isinstance(arguments, dict | None) or (arguments and messages is None):
        raise UsageError("chat_template_kwargs must be an object, and needs messages", 'for example {"enable_thinking": false}')
    said = None if messages is None else read_messages(messages)
    return Asked(form, identity, prompt, said, bool(echo), _options(form, value), arguments or {})


def _options(form: Form, value: dict[str, Any]) -> dict[str, Any]:
    """The rest of a line as `resolve` is asked for it."""
    if value.pop("stream", False) not in (False, None):
        raise UsageError("stream cannot be honoured in a batch", "leave it out")
    if form == "chat" and value.pop("logprobs", None):
        raise UsageError("logprobs of a chat request cannot be honoured", "ask for a completion, or leave it out")
    if form != "tgen":
        value |= _response_format(value.pop("response_format", None))
    options: dict[str, Any] = {}
    for key, item in ((key, item) for key, item in value.items() if item is not None):
        name = ALIASES.get(key, key)
        if name not in OPTIONS:
            near = difflib.get_close_matches(key, [*OPTIONS, *ALIASES], n=1)
            raise UsageError(f"{key!r} is not known", f"do you mean {near[0]!r}?" if near else "`tgen generate --help` lists the options")
        if name in options:
            raise UsageError(f"{key!r} and another name for it exclude each other", "leave one out")
        options[name] = item
    stop = options.get("stop")
    if isinstance(stop, str | list):
        options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    return options


def _response_format(value: Any) -> dict[str, Any]:
    """OpenAI's name for a constraint."""
    match value:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"json_schema": {"type": "object"}}
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return {"json_schema": schema}
    raise UsageError("response_format must be of type text, json_object or json_schema", "json_schema holds a schema")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    """A number that can be written again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is larger than any float")
    return number


def _kind(value: Any) -> str:
    """A value's type, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def merged(command: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """A command's options with a line's own before them; a line's constraint takes the place of any other."""
    constrained = any(name in line for name in CONSTRAINTS)
    return {**{name: value for name, value in command.items() if not constrained or name not in CONSTRAINTS}, **line}


def success(number: int, asked: Asked, answer: dict[str, Any]) -> dict[str, Any]:
    """The record of a line that was answered, in the form it was asked in."""
    if asked.form == "tgen":
        return {"line": number, **({} if asked.id is None else {"id": asked.id}), **answer}
    # Nothing that depends on the day: the same input gives the same output.
    body = {"id": f"cmpl-{number}", "object": "chat.completion" if asked.form == "chat" else "text_completion", "created": 0, **answer}
    response = {"status_code": 200, "request_id": f"line-{number}", "body": body}
    return {"line": number, "id": f"line-{number}", "custom_id": asked.id, "response": response, "error": None}


def failure(number: int, line: Mapping[str, Any], error: TgenError) -> dict[str, Any]:
    """The record of a line, as far as it could be read, that was not."""
    hint = {} if error.hint is None else {"hint": _in_json(error.hint)}
    said = {"code": CODES.get(error.exit_code, "unexpected"), "message": shortened(_in_json(error.message)), **hint}
    if "body" in line:
        return {"line": number, "id": f"line-{number}", "custom_id": identity(line), "response": None, "error": said}
    return {"line": number, **({} if identity(line) is None else {"id": identity(line)}), "error": said}


def _in_json(message: str) -> str:
    """A message about options as a line of JSON spells them: --top-k is top_k."""

    def spelled(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        return name if name in OPTIONS else found[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", spelled, message)
