"""Checks a family's table against the tensors of a checkpoint: none may be missing or left over, and every shape must be right.

It needs only the headers and computes shapes on NumPy arrays without numbers, so a wrong folder is refused before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tgen.checkpoint.stored import StoredTensor, is_zero
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.table import TRANSPOSED, Add, Member, Reorder, Table, Take, moved
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters

# Buffers and counters that some version of transformers stored: nothing is computed from them.
BOOKKEEPING = ("encoder.version", "decoder.version", "rotary_emb.inv_freq")
VALUE_HEAD = "v_head."  # TRL's value head, which only reinforcement learning uses
FLOATS = ("F32", "F16", "BF16", "F64")
# Small matrices that GGUF files keep in float32.
WIDER = tuple(f".{name}.weight" for name in ("router", "shared_gate", "positions", "types", "bias", "distances"))
WRONG_MODEL_HINT = "config.json and the weights may belong to different models; download both again"


@dataclass(frozen=True, slots=True)
class Match:
    """The stored tensor from which one parameter comes, and the steps from that tensor to the parameter."""

    tensor: StoredTensor
    take: Take


@dataclass(frozen=True, slots=True)
class Matches:
    """A match for every parameter.

    `repeats` maps the name of a stored copy to the copy and its original, which must be equal. `left_out` names the tensors of parts that
    tgen does not run, such as a vision tower.
    """

    parameters: dict[str, Match]
    repeats: dict[str, tuple[StoredTensor, StoredTensor]]
    left_out: tuple[str, ...] = ()

    @property
    def number_format(self) -> str:
        """BF16 or F16 if all matrices are stored in that format, else F32.

        Vectors and small tables do not count, because some checkpoints keep them in wider formats.
        """
        counted = (match for name, match in self.parameters.items() if not name.endswith(WIDER))
        formats = {match.tensor.number_format for match in counted if len(match.tensor.shape) > 1}
        return formats.pop() if formats in ({"BF16"}, {"F16"}) else "F32"


def settle_head(
    tensors: Callable[[ModelSpec], Table], spec: ModelSpec, stored: dict[str, StoredTensor], *, vectors: bool = False
) -> ModelSpec:
    """The spec with the head that the files hold: a stored head is used, whatever `tie_word_embeddings` says.

    These become models that give only vectors: an encoder whose files lack its head, an encoder-decoder whose files lack the decoder, and,
    with `vectors`, a decoder whose files lack its head. A head whose files lack its optional bias gets none.
    """
    if spec.head is None:
        return spec
    table = tensors(replace(spec, head=replace(spec.head, tied=False)))

    def absent(parameter: str) -> bool:
        return _find(table.sources[parameter].name, table, stored) is None

    if spec.kind == "encoder-decoder" and all(absent(name) for name in table.sources if name.startswith("decoder.")):
        return replace(spec, decoder=None, head=None)
    if spec.decoder is None and spec.head.transform is not None and absent("head.transform.dense.weight"):
        return replace(spec, head=None)
    if vectors and spec.kind == "decoder-only" and not spec.head.tied and absent("head.out.weight"):
        return replace(spec, head=None)
    bias = spec.head.bias and not ("head.out.bias" in table.optional and absent("head.out.bias"))
    return replace(spec, head=replace(spec.head, tied=spec.head.tied and absent("head.out.weight"), bias=bias))


def match_tensors(table: Table, spec: ModelSpec, stored: dict[str, StoredTensor]) -> Matches:
    """A match for each parameter.

    Raises CheckpointError for a tensor that is missing, left over or of the wrong shape, UnsupportedError for a format of numbers that tgen
    does not read and for a copy that cannot equal its original.
    """
    expected = parameters(spec)
    matches: dict[str, Match] = {}
    taken: dict[str, int] = {}
    for parameter, shape in expected.items():
        found = ((_find(way.name, table, stored), way) for way in table.sources[parameter].ways)
        name, source = next(((name, way) for name, way in found if name is not None), (None, table.sources[parameter]))
        if name is None:
            raise CheckpointError(f"the weights lack the tensor {source.name}", WRONG_MODEL_HINT)
        tensor, take = stored[name], source.take
        if tensor.dtype not in FLOATS:
            raise UnsupportedError(f"{name} is stored as {tensor.dtype}, which is not implemented", f"implemented: {', '.join(FLOATS)}")
        if tensor.is_upright and take[:1] == TRANSPOSED:
            take = take[1:]  # a quantised matrix is [outputs, inputs] even where the family stores [inputs, outputs]
        _check_shape(name, tensor.shape, take, shape)
        taken[name] = taken.get(name, 0) + math.prod(shape)
        if tensor.packed is not None and take and isinstance(take[0], Member):
            tensor, take = tensor.member(take[0].index), take[1:]
        matches[parameter] = Match(tensor, take)
    copies = {_find(copy, table, stored): _find(original, table, stored) for copy, original in table.repeated.items()}
    repeats = {copy: (stored[copy], stored[original]) for copy, original in copies.items() if copy and original and copy != original}
    for copy, (one, other) in repeats.items():
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            raise no_repeat(copy)
    for name, tensor in stored.items():
        unread = name.endswith((*table.ignored, *BOOKKEEPING)) or name.startswith((*table.apart, VALUE_HEAD))
        if unread or (name in repeats and name not in taken):
            continue
        if name not in taken and not _is_needless_bias(name, stored):
            raise CheckpointError(f"the weights hold a tensor that the model has no place for: {name}", WRONG_MODEL_HINT)
        numbers = math.prod(tensor.shape)
        if taken.get(name, numbers) != numbers:
            raise CheckpointError(f"{name} holds {numbers} numbers, the model takes {taken[name]}", WRONG_MODEL_HINT)
    return Matches(matches, repeats, tuple(name for name in stored if name.startswith(table.apart)))


def no_repeat(name: str) -> UnsupportedError:
    """The error for a tensor that should be a copy of another one but differs from it."""
    what = "bias for its head" if name.endswith(".bias") else "matrix of embeddings for all its parts"
    hint = f"the family keeps one {what}; a model with several is not implemented"
    return UnsupportedError(f"{name} should be a copy of another tensor, and differs from it", hint)


def no_number(name: str) -> CheckpointError:
    """The error for a parameter that holds NaN or infinity."""
    hint = "the file is damaged or the training diverged; get it again"
    return CheckpointError(f"the weights of {name} hold NaN or infinity", hint)


def _find(name: str, table: Table, stored: dict[str, StoredTensor]) -> str | None:
    """The spelling of a tensor's name in the files; None if they lack the tensor."""
    return next((spelling for spelling in table.spellings(name) if spelling in stored), None)


def _is_needless_bias(name: str, stored: dict[str, StoredTensor]) -> bool:
    """Whether a tensor is a bias of zeros for a quantised matrix, which AutoGPTQ writes even for models without biases."""
    matrix = stored.get(f"{name.removesuffix('.bias')}.weight")
    return name.endswith(".bias") and matrix is not None and matrix.packed is not None and is_zero(stored[name])


def _shape(stored: tuple[int, ...], take: Take) -> tuple[int, ...]:
    """The shape of a tensor after the steps. Raises ValueError or IndexError for a tensor that they do not fit."""
    if not take:
        return stored
    array: np.ndarray = np.broadcast_to(np.False_, stored)  # takes the memory of one number, whatever its shape
    for step in take:
        array = array if isinstance(step, Add | Reorder) else moved(step, array)
    return array.shape


def _check_shape(name: str, stored: tuple[int, ...], take: Take, expected: tuple[int, ...]) -> None:
    try:
        taken = list(_shape(stored, take))
    except (ValueError, IndexError):  # too few axes, or an axis that does not divide into the parts
        taken = None
    if taken != list(expected):
        gives = "" if taken is None or taken == list(stored) else f", which gives {taken}"
        raise CheckpointError(f"{name} has the shape {list(stored)}{gives}; the model takes {list(expected)} from it", WRONG_MODEL_HINT)
