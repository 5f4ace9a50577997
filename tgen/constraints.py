"""What a written text must be: a JSON Schema, a regular expression or one of several choices. Knows no grammar, no model, no vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tgen.errors import UsageError

Kind = Literal["json-schema", "regex", "choices"]
NAMES = ("json_schema", "regex", "choices")


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint: its kind, and the text that says it on a command line: a schema, an expression, a JSON list of choices."""

    kind: Kind
    text: str

    @property
    def flag(self) -> str:
        """The option that asks for it."""
        return f"--{self.kind}"


def read_constraint(asked: Mapping[str, Any]) -> Constraint | None:
    """The constraint among `json_schema` (a schema or its JSON text), `regex` and `choices` (texts); None if there is none.

    Raises UsageError for more than one, and for what cannot be meant whatever the model.
    """
    given = {name: asked[name] for name in NAMES if asked.get(name) is not None}
    if len(given) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in list(given)[:2])
        raise UsageError(f"{first} and {second} exclude each other", "one constraint says what the whole text must be")
    for name, value in given.items():
        return {"json_schema": _json_schema, "regex": _regex, "choices": _choices}[name](value)
    return None


def schema_text(argument: str) -> str:
    """The JSON text that an argument is (it starts with a brace, or is true), or that the file of this name holds. Raises UsageError."""
    text = argument.strip()
    if text.startswith("{") or text in ("true", "false"):
        return text
    try:
        return Path(argument).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--json-schema: cannot read {argument}: {reason}", "give a file, or JSON text that starts with {") from error


def split_choices(arguments: Sequence[str]) -> list[str]:
    """The choices of all arguments: each a list with commas or, to have a comma in a choice, a JSON list. Raises UsageError."""
    choices: list[str] = []
    for argument in arguments:
        if argument.lstrip().startswith("["):
            try:
                values = json.loads(argument)
            except ValueError as error:
                raise UsageError(f"--choices is not a JSON list: {error}", "a list without brackets is split at its commas") from error
            choices += values
        else:
            choices += argument.split(",")
    return choices


def _json_schema(value: object) -> Constraint:
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--json-schema is not JSON: {error}", "give a file, or JSON text that starts with {") from error
    if not isinstance(value, dict | bool):
        raise UsageError(f"--json-schema must be a JSON object, or true, not {json.dumps(value, default=repr)[:60]}")
    try:
        return Constraint("json-schema", json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"--json-schema cannot be written as JSON: {error}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


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
