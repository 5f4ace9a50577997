"""What the readers of all methods of quantising share: gathering the tensors of a weight by name, and checking the keys of config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import DOWNLOAD_HINT

Tensors = dict[str, StoredTensor]
Method = Callable[[Tensors], Tensors]  # takes the tensors of a folder and returns them with each quantised weight as one tensor
Allowed = Mapping[str, Sequence[object] | None]
ABSENT: tuple[object, ...] = (None, {}, [], "")
SCALES = ("F32", "F16", "BF16")
# The endings of scales for activations, keys and values. tgen does not quantise these, which is more exact.
UNREAD = (
    *(".input_scale", ".activation_scale", ".output_scale", ".input_zero_point", ".output_zero_point", ".input_global_scale"),
    *(".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".prob_scale"),
)
IMPLEMENTED = (
    "implemented: AWQ, bitsandbytes, compressed-tensors, FP8, GPTQ, MLX, MXFP4; get the model in one of these formats, or the original "
    "model, which --quantize packs"
)


@dataclass(frozen=True, slots=True)
class Form:
    """The tensors that together hold one weight, by the endings of their names.

    Every quantised module has a tensor that ends in `mark`, those in `needed`, and perhaps those in `optional`. `weight` makes one tensor
    of them, from the module's name and the tensors by their endings; the name of the new tensor ends in `result`.
    """

    mark: str
    needed: tuple[str, ...]
    weight: Callable[[str, Tensors], StoredTensor]
    optional: tuple[str, ...] = ()
    result: str = ".weight"


def folded(stored: Tensors, forms: Sequence[Form], unread: tuple[str, ...] = UNREAD) -> Tensors:
    """The tensors of a folder, with each quantised weight as one tensor under the name of the weight, and without the `unread` ones.

    Raises CheckpointError for tensors that are missing or whose shapes disagree.
    """
    rest = {name: tensor for name, tensor in stored.items() if not name.endswith(unread)}
    made: Tensors = {}
    for form in forms:
        for module in [name.removesuffix(form.mark) for name in rest if name.endswith(form.mark)]:
            for ending in form.needed:
                if module + ending not in rest:
                    raise CheckpointError(f"the weights lack the tensor {module}{ending}", DOWNLOAD_HINT)
            endings = [ending for ending in (form.mark, *form.needed, *form.optional) if module + ending in rest]
            parts = {ending: rest.pop(module + ending) for ending in endings}
            name = module + form.result
            if name in rest or name in made:
                raise CheckpointError(f"the weights hold both {name} and its quantised form", DOWNLOAD_HINT)
            made[name] = form.weight(module, parts)
    return rest | made


def misfit(module: str, parts: Tensors, wanted: str) -> CheckpointError:
    """The error for tensors of a module whose types or shapes do not fit `wanted`, a description of what they should hold."""
    found = [f"{ending.removeprefix('.')} {tensor}" for ending, tensor in parts.items()]
    return CheckpointError(f"{module}: {', '.join(found)} do not fit {wanted}", DOWNLOAD_HINT)


def check(values: Mapping[str, Any], allowed: Allowed, place: str = "") -> None:
    """Raise UnsupportedError for a key or a value that is not implemented. None in `allowed` allows any value; null is always allowed."""
    for key, value in values.items():
        known = allowed.get(key, ())
        if known is not None and value is not None and value not in known and (key in allowed or value not in ABSENT):
            raise refused(f"{place}{key}", value)


def refused(key: str, value: object) -> UnsupportedError:
    """The error for a value of `quantization_config` that is not implemented."""
    return UnsupportedError(f"config.json: quantization_config.{key} = {value!r} is not implemented", IMPLEMENTED)
