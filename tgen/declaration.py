"""How an option is declared: its help, its names, its allowed values, and which other sources may set or ignore it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields
from typing import Any, Literal

from tgen.errors import UsageError

SAMPLING, BEAMS, OUTPUT, RUNNING, PROMPT = "Sampling (in this order)", "Beam search", "Output", "Running", "Prompt"

SWITCHED = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True)
class Declaration:
    """How people ask for an option, which values it may have, and which other sources may set or ignore it.

    The metavar INT or FLOAT makes it a number from `low` to `high` (`above`: not `low` itself); `choices` are the only values. Without
    either and without a metavar it is a flag, and a `switch` is a flag that --no-... turns off; `repeated` options may be given several
    times.
    """

    help: str
    panel: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    switch: bool = False
    repeated: bool = False
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    default: str | None = None  # the default as help shows it, where the record's own value says too little
    environment: bool = False  # TGEN_<NAME> sets it
    folder: bool = False  # generation_config.json may set it
    greedy: bool = True  # temperature 0 uses it
    beams: Literal["use it", "ignore it", "exclude it"] = "use it"
    neutral: object = None  # the value that changes nothing, so that it goes with beams
    needs: str = ""  # the option without which it changes nothing

    @property
    def number(self) -> bool:
        """Whether its values are numbers."""
        return self.metavar in ("INT", "FLOAT")

    def limits(self) -> str:
        """Its range in the words of a help text."""
        if not self.number:
            return ""
        if self.high < 2**32:
            return f"{self.low:g} to {self.high:g}"
        if self.low == -math.inf:
            return "any number"
        return f"above {self.low:g}" if self.above else f"{self.low:g} or more"

    def read(self, text: str) -> Any:
        """The value of a text in the environment or the settings. Raises ValueError for what is no number, UsageError for no switch."""
        if not self.switch:
            return {"INT": int, "FLOAT": float}.get(self.metavar, str)(text)
        if text.lower() not in SWITCHED:
            raise UsageError("it is neither 1 nor 0")
        return SWITCHED[text.lower()]

    def check(self, name: str, value: object) -> None:
        """Raise UsageError, naming option, value and range, for a value that is not allowed."""
        if self.choices and value not in self.choices:
            raise UsageError(f"{flag(name)} must be one of {', '.join(self.choices)}, not {value!r}")
        if self.switch and not isinstance(value, bool):
            raise UsageError(f"{flag(name)} must be true or false, not {value!r}")
        if not self.number:
            return
        largest = sys.float_info.max  # neither infinity nor NaN, nor a whole number that does not fit a float
        if isinstance(value, bool) or not isinstance(value, int | float) or not -largest <= value <= largest:
            raise UsageError(f"{flag(name)} must be a number, not {value!r}")
        if self.metavar == "INT" and not isinstance(value, int):
            raise UsageError(f"{flag(name)} must be a whole number, not {value!r}")
        if not self.low <= value <= self.high or (self.above and value == self.low):
            wanted = f"between {self.low} and {self.high}" if self.high < math.inf else self.limits()
            raise UsageError(f"{flag(name)} must be {wanted}, not {value}")


def flag(name: str) -> str:
    """An option's name as a command line spells it."""
    return f"--{name.replace('_', '-')}"


def declared(help: str, panel: str, metavar: str = "", **rest: Any) -> dict[str, Declaration]:  # noqa: A002
    """Metadata for a record's field: its declaration."""
    return {"declaration": Declaration(help, panel, metavar, **rest)}


def check_fields(record: Any) -> None:
    """Raise UsageError for the first value of a record that its declaration does not allow; the default is always allowed."""
    for option in fields(record):
        value = getattr(record, option.name)
        if option.metadata and value is not option.default:
            option.metadata["declaration"].check(option.name, value)
