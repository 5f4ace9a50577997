"""Compares a family's table with the tensors of a checkpoint: none is missing, none is left over, and every shape is right.

It needs the headers only, with empty NumPy arrays in place of tensors, so a wrong folder is refused before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.table import Add, Reorder, Source, Table, Take, moved
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters

# Buffers and counters that some version of transformers stored: nothing is computed from them.
BOOKKEEPING = ("encoder.version", "decoder.version", "rotary_emb.inv_freq")
FLOATS = ("F32", "F16", "BF16", "F64")
# Small matrices that GGUF files keep in float32.
WIDER = tuple(f".{name}.weight" for name in ("router", "shared_gate", "positions", "types", "bias", "distances"))
WRONG_MODEL_HINT = "config.json and the weights may belong to different models; download both again"


@dataclass(frozen=True, slots=True)
class Match:
    """Where one parameter comes from in the files at hand; `scales` are those of MXFP4 blocks."""

    tensor: StoredTensor
    take: Take
    scales: StoredTensor | None = None

    @property
    def dtype(self) -> str:
        """The format that its numbers are read in: MXFP4 is unpacked to bfloat16, which holds each of them."""
        return self.tensor.dtype if self.scales is None else "BF16"

    @property
    def number_format(self) -> str:
        """The format that holds the numbers as precisely as the file does."""
        return self.tensor.number_format if self.scales is None else "BF16"


@dataclass(frozen=True, slots=True)
class Matches:
    """A match for every parameter. `repeats` maps a copy's name in the files to the copy and its original: one parameter.

    `left_out` names the tensors of parts that tgen does not run, such as a model's eyes.
    """

    parameters: dict[str, Match]
    repeats: dict[str, tuple[StoredTensor, StoredTensor]]
    left_out: tuple[str, ...] = ()

    @property
    def number_format(self) -> str:
        """The narrowest of F32, BF16 and F16 that holds every matrix as it is stored.

        Vectors and small tables, which some checkpoints keep wider, do not count; F64 is narrowed, for no model needs it.
        """
        counted = (match for name, match in self.parameters.items() if not name.endswith(WIDER))
        formats = {match.number_format for match in counted if len(match.tensor.shape) > 1}
        return formats.pop() if formats in ({"BF16"}, {"F16"}) else "F32"


def settle_head(
    tensors: Callable[[ModelSpec], Table], spec: ModelSpec, stored: dict[str, StoredTensor], *, vectors: bool = False
) -> ModelSpec:
    """The spec with the head that the files hold: a stored head is used, whatever `tie_word_embeddings` says.

    An encoder whose files lack its head becomes a model that gives vectors only, and so does a decoder that is to give `vectors`; a head
    whose files lack its optional bias has none.
    """
    if spec.head is None:
        return spec
    table = tensors(replace(spec, head=replace(spec.head, tied=False)))

    def absent(parameter: str) -> bool:
        return _find(table.sources[parameter].name, table, stored) is None

    if spec.decoder is None and spec.head.transform is not None and absent("head.transform.dense.weight"):
        return replace(spec, head=None)
    if vectors and spec.kind == "decoder-only" and not spec.head.tied and absent("head.out.weight"):
        return replace(spec, head=None)
    bias = spec.head.bias and not ("head.out.bias" in table.optional and absent("head.out.bias"))
    return replace(spec, head=replace(spec.head, tied=spec.head.tied and absent("head.out.weight"), bias=bias))


def match_tensors(table: Table, spec: ModelSpec, stored: dict[str, StoredTensor]) -> Matches:
    """A match for each parameter. Raises CheckpointError for a tensor that is missing, left over or of the wrong shape."""
    expected = parameters(spec)
    matches: dict[str, Match] = {}
    taken: dict[str, int] = {}
    for parameter, shape in expected.items():
        found = ((_find(way.name, table, stored), way) for way in table.sources[parameter].ways)
        name, source = next(((name, way) for name, way in found if name is not None), (None, table.sources[parameter]))
        if name is None:
            raise CheckpointError(f"the weights lack the tensor {source.name}", WRONG_MODEL_HINT)
        match = Match(stored[name], source.take, _scales(name, source, table, stored))
        if match.dtype not in FLOATS:
            raise UnsupportedError(f"{name} is stored as {match.dtype}, which is not implemented", f"implemented: {', '.join(FLOATS)}")
        _check_shape(name, _unpacked_shape(match), source, shape)
        for part in (name,) if source.scales is None else (name, source.scales):
            taken[part] = taken.get(part, 0) + math.prod(shape)
        matches[parameter] = match
    copies = {_find(copy, table, stored): _find(original, table, stored) for copy, original in table.repeated.items()}
    repeats = {copy: (stored[copy], stored[original]) for copy, original in copies.items() if copy and original and copy != original}
    for copy, (one, other) in repeats.items():
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            raise no_repeat(copy)
    sizes = {
        id(part): math.prod(_unpacked_shape(match)) for match in matches.values() if match.scales for part in (match.tensor, match.scales)
    }
    for name, tensor in stored.items():
        unread = name.endswith((*table.ignored, *BOOKKEEPING)) or name.startswith(table.apart)
        if unread or (name in repeats and name not in taken):
            continue
        if name not in taken:
            raise CheckpointError(f"the weights hold a tensor that the model has no place for: {name}", WRONG_MODEL_HINT)
        numbers = sizes.get(id(tensor), math.prod(tensor.shape))
        if taken[name] != numbers:
            raise CheckpointError(f"{name} holds {numbers} numbers, the model takes {taken[name]}", WRONG_MODEL_HINT)
    return Matches(matches, repeats, tuple(name for name in stored if name.startswith(table.apart)))


def no_repeat(name: str) -> UnsupportedError:
    """The error for a tensor that should be a copy of another one and differs from it."""
    hint = "the family keeps one matrix of embeddings for all its parts; a model with several is not implemented"
    return UnsupportedError(f"{name} should be a copy of another tensor, and differs from it", hint)


def no_number(name: str) -> CheckpointError:
    """The error for a parameter that holds NaN or infinity."""
    hint = "the file is damaged or the training diverged; get it again"
    return CheckpointError(f"the weights of {name} hold NaN or infinity", hint)


def _find(name: str, table: Table, stored: dict[str, StoredTensor]) -> str | None:
    """The spelling of a tensor's name in the files; None if they lack it."""
    return next((spelling for spelling in table.spellings(name) if spelling in stored), None)


def _scales(name: str, source: Source, table: Table, stored: dict[str, StoredTensor]) -> StoredTensor | None:
    """The scales of a packed tensor. Raises CheckpointError if they or the blocks are not what MXFP4 has."""
    if source.scales is None:
        return None
    found = _find(source.scales, table, stored)
    if found is None:
        raise CheckpointError(f"the weights lack the tensor {source.scales}", WRONG_MODEL_HINT)
    blocks, scales = stored[name], stored[found]
    if (blocks.dtype, scales.dtype) != ("U8", "U8") or len(blocks.shape) != 4 or blocks.shape != (*scales.shape, 16):
        raise CheckpointError(f"{name} and {found} are not blocks of 16 bytes and a byte of scale for each", WRONG_MODEL_HINT)
    return scales


def _unpacked_shape(match: Match) -> tuple[int, ...]:
    """The shape of the tensor, a packed one's after unpacking."""
    if match.scales is None:
        return match.tensor.shape
    stack, rows, blocks, size = match.tensor.shape
    return stack, rows, 2 * blocks * size


def _shape(stored: tuple[int, ...], take: Take) -> tuple[int, ...]:
    """The shape of a tensor after the steps. Raises ValueError or IndexError for a tensor that they do not fit."""
    array: np.ndarray = np.broadcast_to(np.False_, stored)  # holds one number, whatever its shape
    for step in take:
        array = array if isinstance(step, Add | Reorder) else moved(step, array)
    return array.shape


def _check_shape(name: str, stored: tuple[int, ...], source: Source, expected: tuple[int, ...]) -> None:
    try:
        taken = list(_shape(stored, source.take))
    except (ValueError, IndexError):  # too few axes, or an axis that does not divide into the parts
        taken = None
    if taken != list(expected):
        gives = "" if taken is None or taken == list(stored) else f", which gives {taken}"
        raise CheckpointError(f"{name} has the shape {list(stored)}{gives}; the model takes {list(expected)} from it", WRONG_MODEL_HINT)
