"""Opens and checks a checkpoint without torch: its spec, where its tensors lie, and its generation defaults.

A Hugging Face folder and a GGUF file both offer the same four members, which the protocol Container names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tgen.checkpoint.adapters.opening import Adapter, open_adapters
from tgen.checkpoint.adapters.tensors import adapted
from tgen.checkpoint.matching import Matches, match_tensors, settle_head
from tgen.checkpoint.purpose import other_task
from tgen.checkpoint.quantised.find import find_method
from tgen.checkpoint.quantised.method import Method
from tgen.checkpoint.safetensors import stored_tensors
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import Config
from tgen.families.registry import FAMILIES, Family, find_family
from tgen.families.table import Table
from tgen.files import DOWNLOAD_HINT, read_json, read_optional_json
from tgen.spec.records import ModelSpec


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a model folder or a GGUF file.

    `folder` is the path of either. `generation` is generation_config.json, unchecked. `texts` is the path of the tokenizer and the chat
    template, which an adapter may bring along. `paired` says whether a GGUF file orders the rows of queries and keys so that a rotated
    pair are neighbours; None for a folder.
    """

    folder: Path
    model_type: str
    spec: ModelSpec
    stored: dict[str, StoredTensor]
    matches: Matches
    config: dict[str, Any]
    generation: dict[str, Any]
    texts: Path
    adapters: tuple[Adapter, ...] = ()
    paired: bool | None = None

    @property
    def name(self) -> str:
        """The name of the folder or file, for people."""
        return self.folder.resolve().name

    @property
    def is_quantised(self) -> bool:
        """Whether it holds matrices in fewer than 16 bits a number."""
        return any(match.tensor.is_narrow for match in self.matches.parameters.values())


class Container(Protocol):
    """A place that holds a checkpoint: a Hugging Face folder, or a GGUF file."""

    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def generation(self) -> dict[str, Any]: ...
    def stored(self) -> dict[str, StoredTensor]: ...
    def table(self, spec: ModelSpec) -> Table: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A Hugging Face folder: its config.json, its generation_config.json (empty where it has none), and where its tensors lie."""

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    method: Method | None
    family: Family

    def stored(self) -> dict[str, StoredTensor]:
        """Its tensors, with each quantised weight as one. Raises CheckpointError, UnsupportedError."""
        stored = stored_tensors(self.path)
        return stored if self.method is None else self.method(stored)

    def table(self, spec: ModelSpec) -> Table:
        """The family's table, which says where the folder holds each parameter."""
        return self.family.tensors(spec)


def open_checkpoint(path: Path, *, vectors: bool = False, adapters: Sequence[str] = ()) -> Checkpoint:
    """Open and check a folder or a GGUF file with `adapters`, each FOLDER or FOLDER=SCALE; an adapter's folder is opened with its base.

    With `vectors`, a decoder may lack its head, because it only gives vectors.

    Raises CheckpointError or UnsupportedError, which names the first fault.
    """
    container: Container
    paired = None
    opened = open_adapters(path, adapters)
    path = opened.base
    if path.is_file() and opened.adapters:
        raise UnsupportedError(
            f"an adapter changes a Hugging Face folder, and {path} is a GGUF file",
            "name the folder that the file was made from; llama.cpp's own tools merge an adapter into a GGUF file",
        )
    if path.is_file():
        from tgen.checkpoint.gguf.file import open_gguf

        container = open_gguf(path)
        paired = container.interleaved
        with named_after(path):
            config, spec, _ = _read(container.config)
    else:
        if not path.is_dir():
            raise CheckpointError(f"no folder {path}", "`tgen models` lists the models on this machine")
        values = read_json(path / "config.json")
        config, spec, method = _read(values, path)
        family = find_family(config.model_type)
        container = Folder(path, values, read_optional_json(path / "generation_config.json"), method, family)
    stored = container.stored()
    if opened.adapters:
        spec, stored = adapted(opened.adapters, container.table, spec, stored)
    spec = settle_head(container.table, spec, stored, vectors=vectors)
    try:
        matches = match_tensors(container.table(spec), spec, stored)
    except CheckpointError:
        if (other := other_task(config.values, stored)) is not None:
            raise other from None
        raise
    return Checkpoint(
        path, config.model_type, spec, stored, matches, config.values, container.generation, opened.texts, opened.adapters, paired
    )


def _read(values: dict[str, Any], folder: Path | None = None) -> tuple[Config, ModelSpec, Method | None]:
    """The spec of a config.json, and the method with which the folder's weights are quantised, or None.

    Raises CheckpointError for an invalid value, UnsupportedError for a model or a method that tgen does not implement.
    """
    config = Config(values)
    if config.model_type not in FAMILIES:
        from tgen.families.nearest import unknown_family

        raise unknown_family(config, _tensor_names(folder))
    family = find_family(config.model_type)
    method = find_method(config, folder) if folder is not None else None
    config.require("add_cross_attention", [False])
    config.require("pruned_heads", [{}])
    config.require("is_causal", [True])
    spec = family.spec(config)
    config.refuse_unread()
    return config, spec, method


def _tensor_names(folder: Path | None) -> set[str]:
    """The names of a folder's tensors; an empty set if they cannot be read."""
    try:
        return set() if folder is None else set(stored_tensors(folder))
    except CheckpointError:
        return set()


@contextmanager
def named_after(path: Path) -> Iterator[None]:
    """Within this context, errors about config.json name the GGUF file instead, whose metadata take its place."""
    try:
        yield
    except CheckpointError as error:
        hint = DOWNLOAD_HINT if error.hint is None or "config.json" in error.hint else error.hint
        raise type(error)(error.message.replace("config.json", str(path)), hint) from error
