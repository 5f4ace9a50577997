"""What a user may ask for, checked on creation, and where each value came from. Knows no model and no command line.

Precedence: what was asked for > environment (`TGEN_TOP_K` ...) > the folder's generation_config.json > built-in.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args

from tgen.constraints import NAMES, Constraint, read_constraint
from tgen.errors import CheckpointError, UsageError

Overflow = Literal["error", "truncate-left", "shrink"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Pooling = Literal["mean", "first"]
Origin = Literal["asked", "environment", "model", "built-in"]


def _range(low: float = -math.inf, high: float = math.inf, *, above: bool = False, whole: bool = False) -> dict[str, Any]:
    """Field metadata: the values allowed, `low` itself not if `above`, whole numbers only if `whole`."""
    return {"low": low, "high": high, "above": above, "whole": whole}


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to continue a prompt. Raises UsageError, naming option, value and range, for a value that cannot be meant."""

    max_new_tokens: int = field(default=256, metadata=_range(1, whole=True))
    temperature: float = field(default=0.8, metadata=_range(0))
    top_k: int = field(default=40, metadata=_range(0, whole=True))
    top_p: float = field(default=0.95, metadata=_range(0, 1))
    min_p: float = field(default=0.0, metadata=_range(0, 1))
    repetition_penalty: float = field(default=1.0, metadata=_range(0, above=True))
    presence_penalty: float = field(default=0.0, metadata=_range())
    frequency_penalty: float = field(default=0.0, metadata=_range())
    no_repeat_ngram_size: int = field(default=0, metadata=_range(0, whole=True))
    seed: int | None = field(default=None, metadata=_range(0, 2**64 - 1, whole=True))
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    num_beams: int = field(default=1, metadata=_range(1, 256, whole=True))
    samples: int = field(default=1, metadata=_range(1, 4096, whole=True))
    logprobs: int | None = field(default=None, metadata=_range(0, 1000, whole=True))
    overflow: Overflow = "error"
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not isinstance(self.stop, tuple | list) or not all(isinstance(text, str) for text in self.stop):
            raise UsageError(f"--stop must be a sequence of texts, not {self.stop!r}")
        if self.samples > self.num_beams > 1:
            raise UsageError(f"--samples {self.samples} is more than --num-beams {self.num_beams}", "each sample is the end of a beam")
        if not all(self.stop):
            raise UsageError("--stop must not be empty")
        if not isinstance(self.ignore_eos, bool):
            raise UsageError(f"--ignore-eos must be true or false, not {self.ignore_eos!r}")
        if self.overflow not in get_args(Overflow):
            raise UsageError(f"--overflow must be one of {', '.join(get_args(Overflow))}, not {self.overflow!r}")
        if self.constraint is not None:
            self._check_constraint(self.constraint)

    def _check_constraint(self, constraint: Constraint) -> None:
        """Raise UsageError beside options that would end the text elsewhere, or write several at once."""
        if not isinstance(constraint, Constraint):
            raise UsageError(f"the constraint must be a Constraint, not {constraint!r}", "give json_schema, regex or choices")
        for name, used in (("num-beams", self.num_beams > 1), ("stop", bool(self.stop)), ("ignore-eos", self.ignore_eos)):
            if used:
                raise UsageError(f"{constraint.flag} and --{name} exclude each other", f"{constraint.flag} settles where the text ends")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where and in which number format to compute; `threads` None leaves the choice to torch."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = field(default=None, metadata=_range(1, 4096, whole=True))

    def __post_init__(self) -> None:
        _check_numbers(self)
        for name, kind in (("device", Device), ("dtype", Dtype)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"--{name} must be one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Options with every value settled, and the origin of each."""

    options: GenerationOptions
    origins: dict[str, Origin]


ENVIRONMENT = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "seed",
)
FROM_MODEL = ("max_new_tokens", "num_beams", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size")
ALWAYS = ("max_new_tokens", "num_beams", "repetition_penalty", "no_repeat_ngram_size")
CHANCE = ("temperature", "top_k", "top_p", "min_p")
WITHOUT_BEAMS = (*CHANCE, "presence_penalty", "frequency_penalty", "logprobs")
WHOLE = frozenset(option.name for option in fields(GenerationOptions) if option.metadata.get("whole"))


def resolve(asked: Mapping[str, Any], environment: Mapping[str, str], model: Mapping[str, Any], *, answer: bool = False) -> Resolved:
    """Settle every option; a value of None in `asked` counts as not asked. `json_schema`, `regex` or `choices` make the constraint.

    `answer` is for an encoder-decoder: it writes the likeliest text where the folder does not say that it samples, and the folder's
    max_length counts what is written and the start token.

    Raises UsageError for what was asked or set in the environment, CheckpointError for a bad value in generation_config.json.
    """
    constraint = read_constraint(asked) or asked.get("constraint")
    asked = {**{key: value for key, value in asked.items() if key not in NAMES}, "constraint": constraint}
    settled: dict[str, Any] = {}
    origins: dict[str, Origin] = {option.name: "built-in" for option in fields(GenerationOptions)}
    layers: list[tuple[Origin, Mapping[str, Any]]] = [
        ("model", _model_values(model, answer)),
        ("environment", _environment_values(environment)),
        ("asked", {key: value for key, value in asked.items() if value is not None}),
    ]
    for origin, values in layers:
        settled |= values
        origins |= dict.fromkeys(values, origin)
    if constraint is not None and origins["num_beams"] == "model":  # what is asked for goes before what the folder prefers
        settled["num_beams"], origins["num_beams"] = 1, "asked"
    unfit = [name for name in WITHOUT_BEAMS if origins[name] in ("asked", "environment")]
    if settled.get("temperature") == 0:
        unfit = [name for name in unfit if name not in CHANCE]
    if unfit and isinstance(settled.get("num_beams"), int) and settled["num_beams"] > 1:
        both = [name for name in unfit if origins[name] == origins["num_beams"]]
        if both:
            raise UsageError(f"--num-beams and --{both[0].replace('_', '-')} exclude each other", "beam search keeps the likeliest texts")
        if origins["num_beams"] == "model":  # what is asked for goes before what the folder prefers
            settled["num_beams"], origins["num_beams"] = 1, origins[unfit[0]]
    return Resolved(GenerationOptions(**settled), origins)


def check_early(asked: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raise UsageError for what is wrong whatever the model says, before anything heavy is imported."""
    resolve(asked, environment, {})


def _model_values(model: Mapping[str, Any], answer: bool) -> dict[str, Any]:
    """What generation_config.json settles; without sampling, temperature 0."""
    values = {name: model[name] for name in FROM_MODEL if model.get(name) is not None}
    if answer and "max_new_tokens" not in values and type(model.get("max_length")) is int:
        values["max_new_tokens"] = max(1, model["max_length"] - 1)
    if model.get("do_sample") is False or (answer and model.get("do_sample") is None):
        values = {name: value for name, value in values.items() if name in ALWAYS} | {"temperature": 0.0}
    try:
        GenerationOptions(**values)
    except UsageError as error:
        name = error.message.split()[0].removeprefix("--").replace("-", "_")
        raise CheckpointError(f"generation_config.json: {name} = {model.get(name)!r} cannot be meant", error.message) from error
    return values


def _environment_values(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ENVIRONMENT:
        variable = f"TGEN_{name.upper()}"
        text = environment.get(variable)
        if not text:
            continue
        try:
            values[name] = int(text) if name in WHOLE else float(text)
            GenerationOptions(**{name: values[name]})
        except (ValueError, UsageError) as error:
            reason = error.message if isinstance(error, UsageError) else f"it is not {'a whole' if name in WHOLE else 'a'} number"
            raise UsageError(
                f"the environment sets {variable}={text!r}: {reason}", f"unset {variable}, or give it another value"
            ) from error
    return values


def _check_numbers(record: GenerationOptions | RunOptions) -> None:
    for option in fields(record):
        if option.metadata:
            _check_number(option, getattr(record, option.name))


def _check_number(option: Field[Any], value: object) -> None:
    name = f"--{option.name.replace('_', '-')}"
    if value is None and option.default is None:
        return
    largest = sys.float_info.max  # neither infinity nor NaN, nor a whole number that does not fit a float
    if isinstance(value, bool) or not isinstance(value, int | float) or not -largest <= value <= largest:
        raise UsageError(f"{name} must be a number, not {value!r}")
    low, high, above = option.metadata["low"], option.metadata["high"], option.metadata["above"]
    if option.metadata["whole"] and not isinstance(value, int):
        raise UsageError(f"{name} must be a whole number, not {value!r}")
    if low <= value <= high and not (above and value == low):
        return
    if high == math.inf:
        wanted = f"above {low}" if above else f"{low} or more"
    else:
        wanted = f"between {low} and {high}"
    raise UsageError(f"{name} must be {wanted}, not {value}")
