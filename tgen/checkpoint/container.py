"""A model folder, opened and checked without torch: its spec, where its tensors lie, and its generation defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgen.checkpoint.matching import Matches, match_tensors, settle_head
from tgen.checkpoint.purpose import other_task
from tgen.checkpoint.quantised.find import find_method
from tgen.checkpoint.safetensors import stored_tensors
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.files import read_json, read_optional_json
from tgen.spec.records import ModelSpec


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a model folder; `generation` is generation_config.json, unchecked."""

    folder: Path
    model_type: str
    spec: ModelSpec
    stored: dict[str, StoredTensor]
    matches: Matches
    config: dict[str, Any]
    generation: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, for people."""
        return self.folder.resolve().name

    @property
    def is_quantised(self) -> bool:
        """Whether the folder holds matrices in fewer than 16 bits a number."""
        return any(match.tensor.packed is not None for match in self.matches.parameters.values())


def open_checkpoint(folder: Path, *, vectors: bool = False) -> Checkpoint:
    """Read and check a folder; a decoder that is to give `vectors` may lack its head.

    Raises CheckpointError or UnsupportedError naming the first fault.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}", "`tgen models` lists the models on this machine")
    config = Config(read_json(folder / "config.json"))
    family = find_family(config.model_type)
    method = find_method(config, folder)
    config.require("add_cross_attention", [False])
    config.require("pruned_heads", [{}])
    spec = family.spec(config)
    config.refuse_unread()
    generation = read_optional_json(folder / "generation_config.json")
    stored = stored_tensors(folder)
    if method is not None:
        stored = method(stored)
    spec = settle_head(family, spec, stored, vectors=vectors)
    try:
        matches = match_tensors(family.tensors(spec), spec, stored)
    except CheckpointError:
        if (other := other_task(config.values, stored)) is not None:
            raise other from None
        raise
    return Checkpoint(folder, config.model_type, spec, stored, matches, config.values, generation)
