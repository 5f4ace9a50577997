"""From the values of a command's options to what `GenerationOptions` is asked for. Knows no grammar until one is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from tgen.cli.prompt import check_encoding
from tgen.constraints import read_constraint, schema_text, split_choices
from tgen.options import GenerationOptions, check_early
from tgen.ui import messages

NAMES = tuple(option.name for option in fields(GenerationOptions))


def asked_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options among a command's arguments, by their names; None is not asked for, and so is a flag that is not set.

    Raises UsageError for what is wrong whatever the model says, before anything heavy is imported.
    """
    asked = {name: values[name] for name in NAMES if values.get(name) is not None and values[name] is not False}
    if asked.get("stop"):
        asked["stop"] = tuple(asked["stop"])
        for text in asked["stop"]:
            check_encoding("--stop", text)
    if "json_schema" in values:
        asked |= _constraint(values["json_schema"], values["regex"], values["choices"])
    check_early(asked, os.environ)
    constraint = read_constraint(asked)
    if constraint is not None:
        from tgen.constraint.grammar import check

        if unknown := check(constraint):
            messages.note(f"--json-schema: read as an annotation, which changes nothing: {', '.join(map(json.dumps, unknown))}")
    return asked


def _constraint(json_schema: str | None, regex: str | None, choices: Sequence[str] | None) -> dict[str, Any]:
    for name, texts in (("--json-schema", [json_schema]), ("--regex", [regex]), ("--choices", choices or [])):
        for text in texts:
            if text is not None:
                check_encoding(name, text)
    return {
        "json_schema": None if json_schema is None else schema_text(json_schema),
        "regex": regex,
        "choices": split_choices(choices) if choices else None,
    }
