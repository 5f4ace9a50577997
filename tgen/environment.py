"""What stands where a command line gives no value: TGEN_... variables in the environment, and the user's settings.

An `environment` holds the variables, and the settings as text under the options' own names (`top_k`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tgen.errors import UsageError
from tgen.values import declarations


@cache
def _variables(record: type) -> Mapping[str, str]:
    """The names of the environment variables that set a record's options, each with the option's name."""
    return {f"TGEN_{name.upper()}": name for name, option in declarations(record).items() if option.environment}


def environment_values(record: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values that TGEN_... variables set for a record's options; an empty variable counts as unset. Raises UsageError."""
    values: dict[str, Any] = {}
    for variable, name in _variables(record).items():
        if not (text := environment.get(variable)):
            continue
        option = declarations(record)[name]
        try:
            values[name] = option.read(text)
            option.check(name, values[name])
        except (ValueError, UsageError) as error:
            kind = "a whole" if option.metavar == "INT" else "a"
            reason = error.message if isinstance(error, UsageError) else f"it is not {kind} number"
            raise UsageError(
                f"the environment sets {variable}={text!r}: {reason}", f"unset {variable}, or give it another value"
            ) from error
    return values


def settings_values(record: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values that the settings file, which was checked when it was read, gives to a record's options. Raises ValueError, UsageError."""
    found = {name: option for name, option in declarations(record).items() if option.environment and name in environment}
    return {name: option.read(environment[name]) for name, option in found.items()}


def standing_values(record: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values that stand where a command line gives none: those of the environment, then those of the settings. Raises UsageError."""
    return {**settings_values(record, environment), **environment_values(record, environment)}
