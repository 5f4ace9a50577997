"""Finds the implemented family that is nearest to an unknown one by structure: by keys of config.json and names of tensors."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import NamedTuple

from tgen.errors import TgenError, UnsupportedError
from tgen.families.config import MAX_NAMED, Config
from tgen.families.registry import FAMILIES, find_family
from tgen.spec.records import ModelSpec

PARTS = ("text_config", "vision_config", "audio_config")
MOST_TENSORS = 10_000  # to compare the names of more with those of every family would take seconds


class Reading(NamedTuple):
    """What a family makes of a config.json that is not its own."""

    model_type: str
    spec: ModelSpec
    unread: list[str]  # keys that it does not know
    absent: int  # how many keys it looks for in vain

    @property
    def order(self) -> tuple[bool, bool, int]:
        """The order of families that know equally many keys: text models of their own kind first, and a family before its variants."""
        return not self.spec.family.startswith(self.model_type), FAMILIES[self.model_type] != self.model_type, self.absent


def unknown_family(config: Config, tensors: set[str]) -> UnsupportedError:
    """The error for a `model_type` that is not in the registry. It names the nearest one, by the names of the checkpoint's tensors, too."""
    readings = [reading for model_type in FAMILIES if (reading := _read_as(config, model_type)) is not None]
    fewest = min((len(reading.unread) for reading in readings), default=0)
    nearest, mismatch = min(
        ((reading, _mismatch(reading, tensors)) for reading in readings if len(reading.unread) == fewest),
        key=lambda pair: (pair[1], *pair[0].order, _unlike(pair[0].model_type, config.model_type)),
        default=(None, 0),
    )
    if nearest is None or mismatch > len(tensors):  # it shares hardly any tensor
        found = "none that is implemented reads such a config.json"
    else:
        keys = ", ".join(nearest.unread[:MAX_NAMED]) + (" and others" if len(nearest.unread) > MAX_NAMED else "")
        found = f"nearest implemented: {nearest.model_type}, which " + (f"does not know {keys}" if keys else "knows all its keys")
    return UnsupportedError(f"config.json: model_type = {config.model_type!r} is not implemented", f"{found}; all: {', '.join(FAMILIES)}")


def _read_as(config: Config, model_type: str) -> Reading | None:
    """What this family makes of a config.json; None if it cannot read it."""
    if FAMILIES[model_type] == "wrapper" and not any(isinstance(value, dict) for value in map(config.values.get, PARTS)):
        return None  # without such a part, a wrapper would read whatever its text model reads
    other = Config({**config.values, "model_type": model_type})
    other.raw("quantization_config")  # belongs to no family
    try:
        spec = find_family(model_type).spec(other)
    except TgenError:
        return None
    return Reading(model_type, spec, list(other.unread()), len(other.absent()))


def _unlike(one: str, other: str) -> float:
    """How much two names differ, from 0 to 1."""
    return 1 - SequenceMatcher(None, one, other).ratio()


def _mismatch(reading: Reading, tensors: set[str]) -> int:
    """How many of the family's parameters are not among these tensors of a checkpoint, and how many of these are no parameters."""
    if len(tensors) > MOST_TENSORS:
        return 0
    table = find_family(reading.model_type).tensors(reading.spec)
    names = [{name for way in source.ways for name in table.spellings(way.name)} for source in table.sources.values()]
    return sum(map(tensors.isdisjoint, names)) + len(tensors.difference(*names)) if tensors else 0
