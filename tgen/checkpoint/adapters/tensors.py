"""Applies adapters to a model's tensors, which it finds by the names in the family's table.

This module computes no weights: a changed matrix is a tensor that names its base and its change, and MappedFiles merges them on reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tgen.checkpoint.adapters.opening import Adapter
from tgen.checkpoint.bins import read_bin
from tgen.checkpoint.matching import FLOATS
from tgen.checkpoint.safetensors import read_safetensors
from tgen.checkpoint.stored import Adapted, LowRank, StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.table import Source, Table, Transpose
from tgen.spec.records import ModelSpec

PREFIX = "base_model.model."
# Parts that peft adds to the name of a module when it wraps the module in its own.
AROUND = (".base_layer", ".modules_to_save")
ORIGINAL = ".original_module"  # marks the base's tensor of a module of which the adapter also stores a trained copy
# The endings of the names of an adapter's tensors. peft keeps those of an embedding as bare parameters, so they lack `.weight`.
DOWN = (".lora_A.weight", ".lora_embedding_A")
UP = (".lora_B.weight", ".lora_embedding_B")
MAGNITUDES = (".lora_magnitude_vector.weight", ".lora_magnitude_vector")
HINT = "the adapter may have been trained on another model; -m names the base"

Stored = dict[str, StoredTensor]


def adapted(
    adapters: tuple[Adapter, ...], tensors: Callable[[ModelSpec], Table], spec: ModelSpec, stored: Stored
) -> tuple[ModelSpec, Stored]:
    """The spec and the tensors with these adapters applied; `tensors` makes the family's table for a spec.

    The spec changes only if an adapter resized the vocabulary. Raises CheckpointError for an adapter that does not fit the model,
    UnsupportedError for one that needs something that tgen does not implement.
    """
    untied = spec if spec.head is None else replace(spec, head=replace(spec.head, tied=False))
    model = _Model(tensors(untied), dict(stored))
    for adapter in adapters:
        _apply(adapter, model)
    rows = model.stored[model.embedding].shape[0] if model.embedding in model.stored else spec.vocab
    return (spec if rows == spec.vocab else replace(spec, vocab=rows)), model.stored


@dataclass(slots=True)
class _Model:
    """A family's table, and the tensors of a folder.

    `places` maps every spelling of a tensor's name to the spelling in the folder and the source of the parameter. `embedding` and `head`
    are the names of these matrices in the folder.
    """

    table: Table
    stored: Stored
    places: dict[str, tuple[str, Source]] = field(init=False)
    embedding: str = field(init=False)
    head: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.places = {}
        for one in self.table.sources.values():
            ways = [(way, self.table.spellings(way.name)) for way in one.ways]
            # The tensor in the folder that leads to the parameter by the same steps, in case it has another name there.
            held = {way.take: name for way, spellings in ways for name in spellings if name in self.stored}
            for way, spellings in ways:
                name = next((name for name in spellings if name in self.stored), held.get(way.take, way.name))
                for spelling in spellings:
                    self.places.setdefault(spelling, (name, way))
        self.embedding = self.name("embedding.weight") or ""
        self.head = self.name("head.out.weight")

    def name(self, parameter: str) -> str | None:
        """The folder's name for the tensor that holds a parameter; None if the model has no such parameter."""
        return self.places[self.table.sources[parameter].name][0] if parameter in self.table.sources else None

    def find(self, name: str, adapter: Adapter) -> tuple[str, Source]:
        """The folder's name and the source of the tensor that the adapter calls `name`.

        Raises CheckpointError if the model has no such tensor, UnsupportedError if several parts of the model share it.
        """
        if name not in self.places:
            raise CheckpointError(f"the adapter {adapter.folder} changes {name}, which the model does not have", HINT)
        found, source = self.places[name]
        if source.name in self.table.repeated.values():
            reason = "which is shared by several parts of the model; that is not implemented"
            raise UnsupportedError(f"the adapter {adapter.folder} changes {name}, {reason}", HINT)
        return found, source

    @property
    def is_tied(self) -> bool:
        """Whether the embedding is also the head."""
        return self.head is not None and self.head not in self.stored and self.embedding in self.stored

    def untie(self) -> None:
        """Make the head a tensor of its own, with the numbers that the embedding has now."""
        if self.head is not None and self.is_tied:
            self.stored[self.head] = self.stored[self.embedding]


def _apply(adapter: Adapter, model: _Model) -> None:
    """Apply one adapter: first the tensors that it replaces, with stored originals before trained copies, then those that it changes."""
    tensors = dict(sorted(_named(adapter), key=lambda named: ORIGINAL not in named[0]))
    ends = (*DOWN, *UP, *MAGNITUDES)
    for name, tensor in tensors.items():
        if not name.endswith(ends):
            _replace(adapter, name, tensor, model)
    modules = {name.removesuffix(end): None for name in tensors for end in ends if name.endswith(end)}
    for module in modules:
        _change(adapter, module, tensors, model)


def _named(adapter: Adapter) -> Iterator[tuple[str, StoredTensor]]:
    """The adapter's tensors under the names of the model's modules.

    Raises CheckpointError for a damaged file, UnsupportedError for a number format or a kind of tensor that tgen does not implement.
    """
    path = adapter.weights
    for name, tensor in (read_safetensors(path) if path.suffix == ".safetensors" else read_bin(path)).items():
        if tensor.dtype not in FLOATS:
            raise UnsupportedError(
                f"{path}: {name} is stored as {tensor.dtype}, which is not implemented", f"implemented: {', '.join(FLOATS)}"
            )
        name = name.removeprefix(PREFIX)
        for around in AROUND:
            name = name.replace(f"{around}.", ".")
        if "lora_" in name and not name.endswith((*DOWN, *UP, *MAGNITUDES)):
            raise UnsupportedError(f"the adapter {adapter.folder} holds {name}, which is not implemented", "merge the adapter with peft")
        yield name, tensor


def _replace(adapter: Adapter, name: str, tensor: StoredTensor, model: _Model) -> None:
    """Use the adapter's tensor in place of the model's. Only the embedding and the head may change their number of rows.

    If the adapter was trained with a copy of the embedding, a head that is tied to the embedding keeps the numbers from before.
    """
    is_original, name = ORIGINAL in name, name.replace(ORIGINAL, "")
    found, _ = model.find(name, adapter)
    before = model.stored.get(found, model.stored[model.embedding] if found == model.head and model.is_tied else None)
    fixed = 1 if found in (model.embedding, model.head) else 0  # the first axis whose size may not change
    if before is not None and before.shape[fixed:] != tensor.shape[fixed:]:
        raise _misfit(adapter, name, tensor.shape, before.shape)
    is_copy = not is_original and adapter.config.replaces(name.rpartition(".")[0]) and not adapter.config.ties
    if found == model.embedding and is_copy and before is not None and before.shape == tensor.shape:
        model.untie()
    model.stored[found] = tensor


def _change(adapter: Adapter, module: str, tensors: Stored, model: _Model) -> None:
    """Change a module's matrix by the product of the adapter's two matrices. Raises CheckpointError if these do not fit it."""
    down, up, magnitudes = (
        next((tensors[module + end] for end in ends if module + end in tensors), None) for ends in (DOWN, UP, MAGNITUDES)
    )
    if down is None or up is None or (magnitudes is None) == adapter.config.has_magnitudes:
        lacking = "lora_A" if down is None else "lora_B" if up is None else "a matching use_dora"
        raise CheckpointError(f"the adapter {adapter.folder} lacks {lacking} for {module}", "get the adapter again")
    found, source = model.find(f"{module}.weight", adapter)
    if found in (model.embedding, model.head) and not adapter.config.ties:
        model.untie()
    elif found == model.head and model.is_tied:
        found = model.embedding
    base = model.stored.get(found)
    if base is None or len(base.shape) != 2:
        raise CheckpointError(f"the adapter {adapter.folder} changes {module}, which is not a matrix of the model", HINT)
    turned = (Transpose() in source.take and not base.is_upright) or f"{module}{DOWN[1]}" in tensors
    config, rank = adapter.config, down.shape[0] if down.shape else 0
    outputs, inputs = base.shape[::-1] if turned else base.shape
    if rank != config.rank_of(module):
        raise CheckpointError(f"the adapter {adapter.folder} has rank {rank} for {module}, its config says {config.rank_of(module)}", HINT)
    for what, tensor, shape in (("A", down, (rank, inputs)), ("B", up, (outputs, rank)), ("magnitudes", magnitudes, (outputs,))):
        if tensor is not None and tensor.shape != shape:
            raise _misfit(adapter, f"{module} ({what})", tensor.shape, shape)
    change = LowRank(down, up, config.scale_of(module) * adapter.scale, magnitudes, turned)
    model.stored[found] = StoredTensor(base.file, "F32", base.shape, adapted=Adapted(base, change))


def _misfit(adapter: Adapter, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> CheckpointError:
    return CheckpointError(f"the adapter {adapter.folder} has the shape {list(found)} for {name}, the model has {list(wanted)}", HINT)
