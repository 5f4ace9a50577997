"""Events, options and errors as JSON objects and back, for a command that a server answers: nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from tgen.errors import CapacityError, CheckpointError, MemoryLimitError, TgenError, UsageError
from tgen.events import Event, Finished, Note, Piece, Reading, Started, Token, TokenScore
from tgen.options import GenerationOptions, Resolved
from tgen.values import Constraint

KINDS: dict[str, Callable[..., Event]] = {kind.__name__: kind for kind in (Reading, Started, Piece, Finished, Note)}


class NumbersError(TgenError):
    """The server's model returned numbers that are not finite."""

    type = "numerical"


ERRORS = {kind.type: kind for kind in (TgenError, UsageError, CheckpointError, MemoryLimitError, CapacityError, NumbersError)}


def event_record(event: Event) -> dict[str, Any]:
    """An event as an object."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    if isinstance(event, Piece):
        values["tokens"] = [[_score(token.score), *map(_score, token.alternatives)] for token in event.tokens]
    elif isinstance(event, Started):
        del values["scores"]  # no command asks for them
    return {"event": type(event).__name__, **values}


def read_event(record: Mapping[str, Any]) -> Event:
    """The event of an object."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items() if name != "event"}
    if record["event"] == "Piece":
        values["tokens"] = tuple(Token(_read_score(first), tuple(map(_read_score, rest))) for first, *rest in record["tokens"])
    return KINDS[record["event"]](**values)


def resolved_record(resolved: Resolved) -> dict[str, Any]:
    """Settled options as an object."""
    return {"options": asdict(resolved.options), "origins": resolved.origins}


def read_resolved(record: Mapping[str, Any]) -> Resolved:
    """The settled options of an object."""
    options: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in record["options"].items()}
    options["constraint"] = None if options["constraint"] is None else Constraint(**options["constraint"])
    return Resolved(GenerationOptions(**options), dict(record["origins"]))


def failure_record(error: TgenError) -> dict[str, Any]:
    """An error as an object."""
    return {"failure": {"type": error.type, "message": error.message, "hint": error.hint}}


def read_failure(record: Mapping[str, Any]) -> TgenError:
    """The error of an object."""
    said = record["failure"]
    return ERRORS.get(said["type"], TgenError)(said["message"], said["hint"])


def _score(score: TokenScore) -> list[Any]:
    return [score.id, score.text, score.logprob, None if score.bytes is None else list(score.bytes)]


def _read_score(values: list[Any]) -> TokenScore:
    number, text, logprob, spelled = values
    return TokenScore(number, text, logprob, None if spelled is None else bytes(spelled))
