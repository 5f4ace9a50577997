"""`--json-schema`, `--regex` and `--choices`: from the command line to what is asked for. Knows no grammar until one is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tgen.cli.prompt import check_encoding
from tgen.constraints import read_constraint, schema_text, split_choices


def asked_constraint(json_schema: str | None, regex: str | None, choices: Sequence[str] | None) -> dict[str, Any]:
    """The options as `GenerationOptions` is asked for them. Raises UsageError."""
    for name, texts in (("--json-schema", [json_schema]), ("--regex", [regex]), ("--choices", choices or [])):
        for text in texts:
            if text is not None:
                check_encoding(name, text)
    return {
        "json_schema": None if json_schema is None else schema_text(json_schema),
        "regex": regex,
        "choices": split_choices(choices) if choices else None,
    }


def check_constraint(asked: Mapping[str, Any]) -> None:
    """Raise UsageError for a constraint that cannot be kept, before a model is loaded."""
    constraint = read_constraint(asked)
    if constraint is not None:
        from tgen.engine.grammar import check

        check(constraint)
