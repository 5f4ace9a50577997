"""Values of options that people may write in several forms; each function here reads them into the one form that the options hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from tgen.declaration import OUTPUT, Declaration, flag
from tgen.errors import UsageError
from tgen.files import refuse_constant

ConstraintKind = Literal["json-schema", "regex", "choices"]
# Each of these makes the field `constraint`.
CONSTRAINTS = {
    "json_schema": Declaration(
        "Write JSON that this schema allows, closed within --max-new-tokens. A schema tgen cannot keep is an error. JSON starts with {.",
        OUTPUT,
        "FILE|JSON",
    ),
    "regex": Declaration("Write a text that matches as a whole. Rust syntax, no lookaround.", OUTPUT, "RE"),
    "choices": Declaration(
        'Write one of these; may be given several times. A choice with a comma needs a JSON list: ["a, b","c"].',
        OUTPUT,
        "A,B,...",
        repeated=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A rule for the whole text that is written: its kind, and its text on a command line (a schema, an expression, a JSON list)."""

    kind: ConstraintKind
    text: str

    @property
    def flag(self) -> str:
        """The option that asks for it."""
        return f"--{self.kind}"


# The filters between the scores and the draw, in the order in which they run unless --samplers says otherwise.
SAMPLERS = ("temperature", "top_n_sigma", "top_k", "top_p", "min_p", "typical_p", "xtc")
NO_BREAKERS = ("none",)  # how a command line says that there are none


def read_constraint(asked: Mapping[str, Any]) -> Constraint | None:
    """The constraint among `json_schema` (a schema or its JSON text), `regex` and `choices` (texts); None if there is none.

    Raises UsageError for more than one, and for a value that is no valid constraint.
    """
    given = {name: asked[name] for name in CONSTRAINTS if asked.get(name) is not None}
    if len(given) > 1:
        first, second = map(flag, list(given)[:2])
        raise UsageError(f"{first} and {second} exclude each other", "give only one of them")
    for name, value in given.items():
        return {"json_schema": _json_schema, "regex": _regex, "choices": _choices}[name](value)
    return None


def _json_schema(value: object) -> Constraint:
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=refuse_constant)
        except ValueError as error:
            raise UsageError(f"--json-schema is not JSON: {error}", "give a file, or JSON text that starts with {") from error
        except RecursionError as error:
            raise UsageError("--json-schema is nested too deeply", "put inner schemas into $defs, and refer to them with $ref") from error
    if not isinstance(value, dict | bool):
        raise UsageError(f"--json-schema must be a JSON object, or true, not {json.dumps(value, default=repr)[:60]}")
    try:
        return Constraint("json-schema", json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"--json-schema cannot be written as JSON: {error}") from error


def _regex(value: object) -> Constraint:
    if not isinstance(value, str):
        raise UsageError(f"--regex must be a text, not {value!r}")
    return Constraint("regex", value)


def _choices(value: object) -> Constraint:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"--choices must be a list of texts, not {value!r}")
    if not value or not all(value):
        raise UsageError("--choices must not be empty", "give texts with commas between them, such as yes,no")
    return Constraint("choices", json.dumps(list(dict.fromkeys(value)), ensure_ascii=False))


def read_samplers(value: object) -> tuple[str, ...]:
    """The names of filters in a text with commas (or llama.cpp's semicolons) or in a list of texts. Raises UsageError."""
    given = value.replace(";", ",").split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise UsageError(f"--samplers must be a list of names, not {value!r}", f"the filters are {', '.join(SAMPLERS)}")
    names = tuple(name.strip().replace("-", "_") for name in given)
    names = tuple("typical_p" if name in ("typ_p", "typical") else name for name in names)
    unknown = next((name for name in names if name not in SAMPLERS), None)
    if unknown is not None or not names:
        raise UsageError(f"--samplers has no filter named {unknown or ''!r}", f"the filters are {', '.join(SAMPLERS)}")
    if len(set(names)) < len(names):
        raise UsageError("--samplers names a filter twice", "each filter runs once")
    return names


def read_biases(value: object) -> tuple[str, ...]:
    """Biases as TOKEN=VALUE, from a list of such texts or of pairs, or from an object of tokens and values. Raises UsageError."""
    items = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple):
        raise UsageError(f"--logit-bias must be TOKEN=VALUE, not {value!r}")
    return tuple(item if isinstance(item, str) else _pair(item) for item in items)


def _pair(item: object) -> str:
    """A token (an id, or a text) and its bias as TOKEN=VALUE."""
    if isinstance(item, list | tuple) and len(item) == 2 and not any(isinstance(part, bool) for part in item):
        token, bias = item
        if isinstance(token, int | str) and isinstance(bias, int | float):
            spelled = json.dumps(token, ensure_ascii=False) if isinstance(token, str) and token.startswith('"') else token
            return f"{spelled}={bias}"
    raise UsageError(f"--logit-bias must give each token a number, not {item!r}", 'for example {"42": -5}')


def split_bias(text: str) -> tuple[int | str, float]:
    """The id, or the text of a token, and the value in TOKEN=VALUE. Raises UsageError."""
    token, equals, number = text.rpartition("=")
    try:
        bias = float(number)
        id_ = int(token) if token.isascii() and token.isdecimal() else None
    except ValueError:
        bias, id_ = math.nan, None
    if not equals or not token or not math.isfinite(bias):
        raise UsageError(f"--logit-bias must be TOKEN=VALUE, not {text!r}", "TOKEN is an id or the text of a token, VALUE a number")
    if id_ is not None:
        return id_, bias
    try:
        quoted = json.loads(token) if token.startswith('"') else token
    except (ValueError, RecursionError):
        quoted = token
    return quoted, bias


@cache
def declarations(record: type) -> Mapping[str, Declaration]:
    """The options that a record declares, in the order of a help page; three of them set `constraint`."""
    found: dict[str, Declaration] = {}
    for option in fields(record):
        found |= CONSTRAINTS if option.name == "constraint" else {option.name: option.metadata["declaration"]}
    return found
