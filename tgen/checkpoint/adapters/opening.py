"""Finds the base model and the adapters that a user names with `--adapter FOLDER=SCALE`, or with an adapter's folder as `--model`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tgen.checkpoint.adapters.config import CONFIG, AdapterConfig, read_config
from tgen.checkpoint.resolve import find, pull_hint, resolve
from tgen.checkpoint.safetensors import BIN, BIN_INDEX, SAFETENSORS, SAFETENSORS_INDEX
from tgen.errors import CheckpointError, UsageError
from tgen.files import read_json

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZER = "tokenizer.json"
ADAPTER_HINT = "name a folder that peft or tgen train wrote"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's folder, its settings, and how strongly it is applied: 1 is as it was trained."""

    folder: Path
    config: AdapterConfig
    scale: float

    @property
    def weights(self) -> Path:
        """The file with the adapter's tensors. Raises CheckpointError if the folder has none."""
        for name in WEIGHTS:
            if (self.folder / name).exists():
                return self.folder / name
        raise CheckpointError(f"no weights in the adapter {self.folder}", f"an adapter's folder holds {CONFIG} and {WEIGHTS[0]}")

    def identity(self) -> str:
        """All that the merged weights depend on besides the contents of the adapter's tensors, as one text."""
        return json.dumps([self.scale, read_json(self.folder / CONFIG)], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Opened:
    """A base model's folder and the adapters on it, in the order in which they are applied."""

    base: Path
    adapters: tuple[Adapter, ...] = ()

    @property
    def texts(self) -> Path:
        """The folder of the tokenizer and the chat template.

        It is the folder of the last adapter that brings a tokenizer, because that adapter was trained with it; else the base's.
        """
        return next((one.folder for one in reversed(self.adapters) if (one.folder / TOKENIZER).is_file()), self.base)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not any((folder / name).exists() for name in (SAFETENSORS, SAFETENSORS_INDEX, BIN, BIN_INDEX))


def open_adapters(folder: Path, named: Sequence[str] = ()) -> Opened:
    """The base and the adapters for a model's folder and the values of --adapter.

    If `folder` is itself an adapter, that adapter is applied first. Raises UsageError for an invalid value, CheckpointError for a folder
    that does not exist.
    """
    found: list[Adapter] = []
    if is_adapter(folder):
        found.append(Adapter(folder, read_config(folder), 1.0))
        folder = _base(found[0])
    for one in named:
        place, scale = _split(one)
        other = find(place)
        if other is None:
            raise CheckpointError(f"no adapter {place!r}: neither a folder nor in the Hugging Face cache", ADAPTER_HINT + pull_hint(place))
        if not (other / CONFIG).is_file():
            raise CheckpointError(f"--adapter {place} is not an adapter: no {CONFIG} in {other}", ADAPTER_HINT)
        found.append(Adapter(other, read_config(other), scale))
    return Opened(folder, tuple(found))


def _base(adapter: Adapter) -> Path:
    """The folder of the model that an adapter was trained on. Raises CheckpointError if it is not on this machine."""
    name, revision = adapter.config.base, adapter.config.revision
    if name is None:
        raise CheckpointError(f"the adapter {adapter.folder} does not name its base model", f"-m BASE --adapter {adapter.folder}")
    if os.path.isdir(name):
        folder = Path(name)
    else:
        try:
            folder = resolve(f"{name}@{revision}" if revision else name)
        except CheckpointError as error:
            raise CheckpointError(
                f"{adapter.folder} is an adapter for {name}, which is not on this machine",
                f"`tgen pull {name}` fetches it; or name its folder: -m BASE --adapter {adapter.folder}",
            ) from error
    if is_adapter(folder):
        raise CheckpointError(f"the base of the adapter {adapter.folder} is an adapter itself: {folder}", "merge that one with peft first")
    return folder


def _split(named: str) -> tuple[str, float]:
    """FOLDER or FOLDER=SCALE, as a folder and a scale. An existing folder with "=" in its name is a folder. Raises UsageError."""
    place, mark, text = named.rpartition("=")
    if not mark or os.path.isdir(named):
        return named, 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not place or not abs(scale) <= 1e6:
        raise UsageError(f"--adapter {named}: {text!r} is not a scale", "give FOLDER, or FOLDER=SCALE with a number such as 0.5")
    return place, scale
