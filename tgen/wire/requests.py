"""Reads JSON requests, in tgen's own form or OpenAI's. This module checks names and types; `GenerationOptions` checks values.

{"prompt": "Once", "id": 7, "max_new_tokens": 20}                  a prompt and any of `GenerationOptions`
{"messages": [{"role": "user", "content": "Hello"}], "id": 8}      the same for a chat model
{"custom_id": "9", "url": "/v1/completions", "body": {...}}        a line of OpenAI's batches
"""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tgen.declaration import flag
from tgen.errors import UsageError
from tgen.files import conversion_hint
from tgen.options import GenerationOptions
from tgen.text.chat import Ending, Message, read_messages
from tgen.values import CONSTRAINTS

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
    "min_tokens": "min_new_tokens",
    "bad_words": "ban",
}
MOST_LEVELS = 500  # of nested lists and objects: Python reads slightly deeper nesting than it can write into a record
TOO_DEEP = f"its lists and objects are nested more than {MOST_LEVELS} levels deep"
OBJECT_HINT = 'one object a line, such as {"prompt": "Once upon a time"}'
# Keys of OpenAI, vLLM and llama.cpp that change nothing at these values.
NEUTRAL: dict[str, Any] = {
    "best_of": 1, "logit_bias": {}, "suffix": "", "stream": False, "n": 1, "modalities": ["text"], "n_predict": -1, "seed": -1,
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "detokenize": True,
    "include_stop_str_in_output": False, "stop_token_ids": [], "use_beam_search": False, "length_penalty": 1, "early_stopping": False,
    "return_token_ids": False, "return_tokens_as_token_ids": False, "cache_prompt": True, "id_slot": -1, "timings_per_token": False,
    "return_tokens": False, "return_progress": False, "post_sampling_probs": False, "lora": [], "grammar": "",
}  # fmt: skip
# Keys that only tell a server which model to ask, whom to charge and when: the model is the one that was loaded.
UNHEEDED = frozenset(
    "model user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention priority request_id".split()
)
# Keys of theirs that ask for something that tgen does not do.
UNHONOURED = frozenset(
    "best_of suffix tools tool_choice parallel_tool_calls functions function_call modalities audio prediction "
    "web_search_options reasoning_effort verbosity moderation stream_options previous_response_id conversation max_tool_calls "
    "prompt_logprobs add_special_tokens truncate_prompt_tokens allowed_token_ids grammar guided_grammar chat_template documents n_probs "
    "n_keep mirostat repeat_last_n "
    "logits_processors add_generation_prompt continue_final_message".split()
) | {key for key in NEUTRAL if key not in ALIASES and key not in ("stream", "logit_bias", "seed")}
# vLLM's names for constraints, the older ones and those within `structured_outputs`.
GUIDED = {"guided_json": "json_schema", "guided_regex": "regex", "guided_choice": "choices"}
STRUCTURED = {"json": "json_schema", "regex": "regex", "choice": "choices"}
# Values by which others turn an option off, and tgen's value for that.
OFF = {("top_k", -1): 0}


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """The request that a JSON object makes. Exactly one of `prompt` and `messages` is set; `options` are those that the object names."""

    form: Form = "tgen"
    prompt: str | list[int] | None = None
    messages: list[Message] | None = None
    echo: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    template_arguments: dict[str, Any] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict, compare=False)  # by option, the other name that the object uses

    def in_own_words(self, error: UsageError) -> UsageError:
        """An error about an option, with the name that the object uses for it."""
        message = error.message
        for name, spelling in self.spellings.items():
            message = re.sub(rf"{flag(name)}(?![\w-])", spelling, message)
        return UsageError(message, error.hint)


@dataclass(frozen=True, slots=True)
class LineKey:
    """A line's number, its id (None without one), and whether it has OpenAI's envelope, a body beside other keys."""

    number: int
    identity: Any = None
    enveloped: bool = False


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises UsageError for anything else."""
    try:
        text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"it is not UTF-8 at byte {error.start}", conversion_hint(line)) from error
    except UnicodeEncodeError as error:
        raise UsageError("it holds half a surrogate pair, which is not a character", "correct it") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"it is not JSON: {error}", OBJECT_HINT) from error
    except RecursionError as error:
        raise UsageError(TOO_DEEP, OBJECT_HINT) from error
    except ValueError as error:  # Python reads no whole number that is longer
        raise UsageError(f"it holds a whole number of more than {sys.get_int_max_str_digits():,} digits", "write fewer digits") from error
    if not isinstance(value, dict):
        raise UsageError(f"it is not a JSON object but {_kind(value)}", OBJECT_HINT)
    if _is_deep(value):
        raise UsageError(TOO_DEEP, OBJECT_HINT)
    return value


def line_key(number: int, value: Mapping[str, Any]) -> LineKey:
    """The key of a line or of its record, from as much of it as could be read."""
    return LineKey(number, value.get("custom_id", value.get("id")), "body" in value)


def read_request(value: Mapping[str, Any]) -> JsonRequest:
    """The request of an object on a line. Raises UsageError for an unknown key, a value of the wrong type, or one that is not honoured."""
    if "body" not in value:
        return _read("tgen", {key: item for key, item in value.items() if key not in ("id", "custom_id")})
    body, method = value["body"], value.get("method", "POST")
    if not isinstance(body, dict):
        raise UsageError(f"body must be a JSON object, not {_kind(body)}")
    if unknown := sorted(value.keys() - {"custom_id", "method", "url", "body"}):
        raise UsageError(f"{unknown[0]!r} is not known beside a body", "a line has custom_id, method, url and body")
    url = value.get("url", "/v1/chat/completions" if "messages" in body else "/v1/completions")
    if method != "POST" or not isinstance(url, str) or url not in URLS:
        raise UsageError(f"tgen does not answer {method} {url}", f"use POST {' or POST '.join(URLS)}")
    return read_body(URLS[url], body)


def read_body(form: Form, body: Mapping[str, Any]) -> JsonRequest:
    """The request of an OpenAI body. Raises UsageError."""
    kept = {key: item for key, item in body.items() if key not in UNHEEDED and (key not in NEUTRAL or item != NEUTRAL[key])}
    if isinstance(kept.get("prompt"), list) and len(kept["prompt"]) == 1 and isinstance(kept["prompt"][0], str):
        kept["prompt"] = kept["prompt"][0]
    return _read(form, kept)


def _read(form: Form, value: dict[str, Any]) -> JsonRequest:
    prompt, messages, echo = (value.pop(key, None) for key in ("prompt", "messages", "echo"))
    wanted = {"tgen": "a prompt or messages, and not both", "completion": "a prompt, and no messages", "chat": "messages, and no prompt"}
    if (prompt is None) == (messages is None) or (prompt is None and form == "completion") or (messages is None and form == "chat"):
        raise UsageError(f"it must have {wanted[form]}")
    if messages == []:
        raise UsageError("messages must not be empty")
    if prompt is not None and not isinstance(prompt, str) and not _is_ids(prompt):
        raise _no_text("prompt", prompt)
    if not isinstance(echo, bool | None) or (echo and not isinstance(prompt, str)):
        raise UsageError("echo must be true or false, and needs a prompt that is a text")
    arguments = value.pop("chat_template_kwargs", None)
    if not isinstance(arguments, dict | None) or (arguments and messages is None):
        raise UsageError("chat_template_kwargs must be an object, and needs messages", 'for example {"enable_thinking": false}')
    said = None if messages is None else read_messages(messages)
    options, spellings = _options(form, value)
    return JsonRequest(form, prompt, said, bool(echo), options, arguments or {}, spellings)


def _options(form: Form, value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The options in the other keys by their names in `GenerationOptions`, and the names that the request uses for them."""
    if value.pop("stream", False) not in (False, None):
        raise UsageError("stream cannot be honoured in a batch", "leave it out")
    if form == "chat":
        value |= _chat_logprobs(value.pop("logprobs", None), value.pop("top_logprobs", None))
    if form != "tgen":
        value |= _response_format(value.pop("response_format", None)) | _structured(value.pop("structured_outputs", None))
    options: dict[str, Any] = {}
    spellings: dict[str, str] = {}
    for key, item in ((key, item) for key, item in value.items() if item is not None):
        name = ALIASES.get(key) or (GUIDED.get(key, key) if form != "tgen" else key)
        if key in UNHONOURED:
            raise UsageError(f"{key!r} cannot be honoured", "leave it out")
        if name not in OPTIONS:
            near = difflib.get_close_matches(key, [*OPTIONS, *ALIASES], n=1)
            raise UsageError(f"{key!r} is not known", f"do you mean {near[0]!r}?" if near else "`tgen generate --help` lists the options")
        if name in options:
            raise UsageError(f"{key!r} and another name for it exclude each other", "leave one out")
        options[name] = OFF.get((name, item), item) if isinstance(item, int) else item
        if name != key:
            spellings[name] = key
    for name in ("stop", "ban", "dry_sequence_breakers"):
        if isinstance(texts := options.get(name), str | list):
            options[name] = (texts,) if isinstance(texts, str) else tuple(texts)
    return options, spellings


def _chat_logprobs(wanted: Any, count: Any) -> dict[str, Any]:
    """OpenAI's two keys for the log-probabilities of a chat: whether to give them, and for how many alternatives."""
    if not isinstance(wanted, bool | None):
        raise UsageError(f"logprobs of a chat request must be true or false, not {wanted!r}", "top_logprobs says how many")
    if count is None:
        return {"logprobs": 0} if wanted else {}
    if not wanted:
        raise UsageError("top_logprobs needs logprobs to be true", 'add "logprobs": true')
    if type(count) is not int or count < 0:
        raise UsageError(f"top_logprobs must be a whole number of 0 or more, not {count!r}")
    return {"logprobs": count}


def _response_format(value: Any) -> dict[str, Any]:
    """OpenAI's name for a constraint."""
    match value:
        case None | {"type": "text"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": schema}} | {"type": "json_schema" | "json_object", "schema": schema}:
            return {"json_schema": schema}  # llama.cpp has the schema beside the type
        case {"type": "json_object"}:
            return {"json_schema": {"type": "object"}}
    raise UsageError("response_format must be of type text, json_object or json_schema", "json_schema holds a schema")


def _structured(value: Any) -> dict[str, Any]:
    """vLLM's name for a constraint."""
    match value:
        case None:
            return {}
        case {"json_object": True, **rest} if not rest:
            return {"json_schema": {"type": "object"}}
        case dict() if value and value.keys() <= STRUCTURED.keys():
            return {STRUCTURED[key]: constraint for key, constraint in value.items()}
    raise UsageError("structured_outputs must have json, regex, choice or json_object", "tgen knows no other kind of constraint")


def take_texts(body: dict[str, Any], key: str, most: int) -> list[str | list[int]]:
    """Take a text, ids, or a list of either out of a body. Raises UsageError for anything else, and for more than `most`."""
    value = body.pop(key, None)
    texts = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(texts, list) or not texts:
        raise _no_text(key, value)
    if len(texts) > most:
        raise UsageError(f"{key} holds {len(texts):,} texts, and may hold {most:,}", "ask for fewer at once")
    for text in texts:
        if not isinstance(text, str) and not _is_ids(text):
            raise _no_text(key, value)
    return texts


def take_flag(body: dict[str, Any], key: str) -> bool:
    """Take a key that is true or false out of a body. Raises UsageError for anything else."""
    value = body.pop(key, None)
    if not isinstance(value, bool | None):
        raise UsageError(f"{key} must be true or false, not {_kind(value)}")
    return bool(value)


def take_ending(body: dict[str, Any]) -> Ending:
    """Take out of a body the keys that say how its conversation continues. Raises UsageError."""
    begin, named = body.get("add_generation_prompt") is not False, body.get("add_generation_prompt") is not None
    take_flag(body, "add_generation_prompt")
    if not take_flag(body, "continue_final_message"):
        return "answer" if begin else "finished"
    if named and begin:
        raise UsageError("continue_final_message and add_generation_prompt exclude each other", "leave one of them out")
    return "continued"


def take_number(body: dict[str, Any], key: str, low: int, high: int) -> int | None:
    """Take a whole number from `low` to `high` out of a body; None if it is not there. Raises UsageError for anything else."""
    value = body.pop(key, None)
    if value is not None and (type(value) is not int or not low <= value <= high):
        raise UsageError(f"{key} must be a whole number from {low} to {high}, not {json.dumps(value)[:60]}")
    return value


def _no_text(key: str, value: Any) -> UsageError:
    other = "a list of something else" if isinstance(value, list) else _kind(value)
    return UsageError(f"{key} must be a text or a list of token ids, not {other}")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_LEVELS):
        if not level:
            return False
        inside = (inner for one in level for inner in (one.values() if isinstance(one, dict) else one))
        level = [inner for inner in inside if isinstance(inner, dict | list)]
    return bool(level)


def _no_constant(name: str) -> None:
    raise UsageError(f"it is not JSON: {name} is not a JSON value", OBJECT_HINT)


def _finite(text: str) -> float:
    """A number that JSON can hold, so that an id comes back as it was."""
    number = float(text)
    if not math.isfinite(number):
        raise UsageError("it is not JSON: a number is larger than any float", OBJECT_HINT)
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises UsageError for a key that occurs twice, because Python would silently drop one of the values."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise UsageError(f"it has the key {max(counted, key=counted.__getitem__)!r} twice", "keep one of the two")
    return value


def _kind(value: Any) -> str:
    """A value's type, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def merged(command: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command and of a line. The line's take precedence, and its constraint replaces the command's, whatever its kind."""
    constrained = any(name in line for name in CONSTRAINTS)
    return {**{name: value for name, value in command.items() if not constrained or name not in CONSTRAINTS}, **line}
