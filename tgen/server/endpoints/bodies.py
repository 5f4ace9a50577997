"""Checks the body of a request of tgen's own commands, because a command of another version, or another program, may send anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

from tgen.environment import settings_values
from tgen.errors import UsageError
from tgen.options import GenerationOptions, Pooling
from tgen.values import CONSTRAINTS

Check = Callable[[Any], bool]
OPTIONS = {one.name for one in fields(GenerationOptions)} - {"constraint"} | {*CONSTRAINTS}


def check_body(command: str, body: Mapping[str, Any]) -> None:
    """Raise UsageError for a body that the command would not send."""
    for key, is_right in (OPTIONAL | SHAPES[command]).items():
        if not is_right(body[key]) if key in body else key in SHAPES[command]:
            hint = "the command and the server may be of different versions of tgen; other programs use the paths under /v1"
            raise UsageError(f"the server cannot read {key!r} in a request of `tgen {command}`", hint)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _bytes(value: Any) -> bool:
    return isinstance(value, str) and all(ord(character) < 256 for character in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _values(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= OPTIONS


def _environment(value: Any) -> bool:
    """Whether a value is an environment: variables, which may have any text, and settings, which the command has checked."""
    if not isinstance(value, dict) or not all(map(_text, value.values())):
        return False
    try:
        settings_values(GenerationOptions, value)
    except (ValueError, UsageError):
        return False
    return True


def _pooling(value: Any) -> bool:
    return value in get_args(Pooling) if isinstance(value, str) else value is None


def _state(value: Any) -> bool:
    """Whether a value is the state of a conversation; the conversation itself checks the turns in it."""
    if not isinstance(value, dict):
        return False
    parts: dict[str, Check] = {
        "turns": lambda turns: isinstance(turns, list),
        "system": _or_none(_text),
        "dropped": _count,
        "replies": _count,
        "unanswered": _or_none(_text),
    }
    return all(key in value and is_right(value[key]) for key, is_right in parts.items())


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


SETTINGS: dict[str, Check] = {"values": _values, "environment": _environment}
OPTIONAL: dict[str, Check] = {
    "model": _or_none(_text),
    "kinds": _or_none(_texts),
    "id": _or_none(_text),
    **{name: _or_none(check) for name, check in SETTINGS.items()},
}
SHAPES: dict[str, dict[str, Check]] = {
    "describe": {},
    "cancel": {"id": _text},
    "generate": {
        **SETTINGS, "id": _text, "prompt": _text, "chat": _flag, "system": _or_none(_text), "template_arg": _or_none(_texts)
    },
    "batch": {**SETTINGS, "id": _text, "line": _bytes, "number": _count, "name": _text, "template_arg": _texts},
    "score": {"text": _text, "tokens": _flag},
    "translate": {**SETTINGS, "lines": _texts, "from": _or_none(_text), "to": _or_none(_text)},
    "embed": {"lines": _texts, "pooling": _pooling, "normalize": _or_none(_flag), "prompt_name": _or_none(_text)},
    "chat": {**SETTINGS, "text": _or_none(_text), "system": _or_none(_text), "template_arg": _or_none(_texts), "state": _state},
}  # fmt: skip
