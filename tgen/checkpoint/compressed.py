"""Folders with quantised weights in the compressed-tensors format `pack-quantized`: which of them are read, and their tensors.

A quantised matrix NAME.weight is three tensors there: NAME.weight_packed, NAME.weight_scale and NAME.weight_shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tgen.checkpoint.stored import Packed, StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import Config
from tgen.files import DOWNLOAD_HINT

METHOD, FORMAT = "compressed-tensors", "pack-quantized"
GROUP = 32  # group sizes are multiples of it
WORDS, SCALE, SHAPE = "weight_packed", "weight_scale", "weight_shape"
SCALES = ("F32", "F16", "BF16")
IMPLEMENTED = (
    f"implemented: {METHOD} with the format {FORMAT}, symmetric integers of 4 or 8 bits, one scale for each row or for each {GROUP}, "
    f"{2 * GROUP}, ... columns of it, and float activations"
)
ABSENT: tuple[object, ...] = (None, {}, [])
# What each key of `quantization_config`, of a group in it, and of the group's weights may hold; None in place of the values allows any.
CONFIG: dict[str, tuple[object, ...] | None] = {
    "quant_method": (METHOD,),
    "format": (FORMAT,),
    "quantization_status": ("compressed", "frozen"),
    "config_groups": None,
    "ignore": None,
    "global_compression_ratio": None,
    "version": None,
    "kv_cache_scheme": ABSENT,
    "moe_sparsity_config": ABSENT,
    "sparsity_config": ABSENT,
    "transform_config": ABSENT,
}
# GPT-OSS has its experts in MXFP4, which its family's table reads.
MXFP4: dict[str, tuple[object, ...] | None] = {"quant_method": ("mxfp4",), "modules_to_not_convert": None, "dequantize": (False, True)}
SCHEME: dict[str, tuple[object, ...] | None] = {
    "targets": None,
    "weights": None,
    "format": (FORMAT,),
    "input_activations": ABSENT,
    "output_activations": ABSENT,
}
WEIGHTS: dict[str, tuple[object, ...] | None] = {
    "num_bits": (4, 8),
    "type": ("int",),
    "symmetric": (True,),
    "strategy": ("group", "channel"),
    "group_size": None,
    "dynamic": (False,),
    "actorder": ("static", "weight"),
    "block_structure": ABSENT,
    "scale_dtype": None,
    "zp_dtype": None,
    "observer": None,
    "observer_kwargs": None,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How some matrices are quantised: bits of an integer, and columns of a group; None is a whole row."""

    bits: int
    group: int | None


def read_quantization(config: Config) -> tuple[Scheme, ...]:
    """The schemes that config.json names; none for a folder that is not quantised.

    Raises UnsupportedError for all that is not implemented.
    """
    found = config.mapping("quantization_config")
    if not found:
        return ()
    if config.model_type == "gpt_oss" and found.get("quant_method") == "mxfp4":
        _check(found, MXFP4, "")
        return ()  # the names of the tensors tell which of them are packed
    if found.get("quant_method") != METHOD:  # the other keys depend on the method
        raise _refused("quant_method", found.get("quant_method"))
    _check(found, CONFIG, "")
    groups = found.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise _refused("config_groups", groups)
    return tuple(_scheme(group, f"config_groups.{name}.") for name, group in groups.items())


def _scheme(group: object, place: str) -> Scheme:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(group, dict) or not isinstance(weights, dict):
        raise _refused(f"{place}weights", weights)
    _check(group, SCHEME, place)
    _check(weights, WEIGHTS, f"{place}weights.")
    bits, size, strategy = int(weights.get("num_bits") or 8), weights.get("group_size"), weights.get("strategy")
    if strategy is None:
        strategy = "group" if size not in (None, -1) else "channel" if size == -1 else None
    if strategy is None:
        raise _refused(f"{place}weights.strategy", None)
    if strategy == "channel":
        return Scheme(bits, None)
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or size % GROUP:
        raise _refused(f"{place}weights.group_size", size)
    return Scheme(bits, size)


def _check(values: dict[str, Any], allowed: dict[str, tuple[object, ...] | None], place: str) -> None:
    """Raise UnsupportedError for a key or value that is not implemented; null is always fine."""
    for key, value in values.items():
        if key in allowed and (allowed[key] is None or value is None or value in (allowed[key] or ())):
            continue
        if key in allowed or value not in ABSENT:
            raise _refused(f"{place}{key}", value)


def _refused(key: str, value: object) -> UnsupportedError:
    return UnsupportedError(f"config.json: quantization_config.{key} = {value!r} is not implemented", IMPLEMENTED)


def quantization_config(bits: int, group: int, ignored: Sequence[str]) -> dict[str, object]:
    """What config.json says of a folder whose matrices have integers of `bits` bits, but for the modules that are `ignored`."""
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group, "dynamic": False}
    scheme = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": list(ignored),
        "kv_cache_scheme": None,
    }


def unpacked_names(stored: dict[str, StoredTensor], schemes: tuple[Scheme, ...]) -> dict[str, StoredTensor]:
    """The tensors with each quantised matrix as one, under the name that it has in a folder that is not quantised.

    Raises CheckpointError for tensors that are missing or whose shapes disagree, UnsupportedError for a scheme that is not among `schemes`.
    """
    if not schemes:
        return stored
    modules = [name.removesuffix(WORDS) for name in stored if name.endswith(f".{WORDS}")]
    folded = {f"{module}{part}" for module in modules for part in (WORDS, SCALE, SHAPE)}
    matrices = dict(_matrices(modules, stored, schemes))
    for name in matrices.keys() & stored.keys():
        raise CheckpointError(f"the weights hold both {name} and its quantised form", DOWNLOAD_HINT)
    rest = {name: tensor for name, tensor in stored.items() if name not in folded}
    for name in rest:
        if name.endswith((".weight_zero_point", ".weight_g_idx")):
            raise UnsupportedError(f"the quantised weights have {name}, which is not implemented", IMPLEMENTED)
    return rest | matrices


def _matrices(modules: list[str], stored: dict[str, StoredTensor], schemes: tuple[Scheme, ...]) -> Iterator[tuple[str, StoredTensor]]:
    for module in modules:
        for part in (SCALE, SHAPE):
            if f"{module}{part}" not in stored:
                raise CheckpointError(f"the weights lack the tensor {module}{part}", DOWNLOAD_HINT)
        words, scale = stored[f"{module}{WORDS}"], stored[f"{module}{SCALE}"]
        rows, columns = _shape(f"{module}{SHAPE}", stored[f"{module}{SHAPE}"])
        found = [scheme for scheme in schemes if _fits(scheme, rows, columns, words, scale)]
        if not found:
            raise CheckpointError(
                f"{module}{WORDS} {words.dtype} {list(words.shape)} and {SCALE} {scale.dtype} {list(scale.shape)} do not fit a matrix of "
                f"{rows} x {columns} and the groups of config.json",
                DOWNLOAD_HINT,
            )
        yield f"{module}weight", StoredTensor(words.file, "F32", (rows, columns), packed=Packed(found[0].bits, words, scale))


def _fits(scheme: Scheme, rows: int, columns: int, words: StoredTensor, scale: StoredTensor) -> bool:
    groups = 1 if scheme.group is None else columns / scheme.group
    return (
        words.dtype == "I32"
        and scale.dtype in SCALES
        and words.shape == (rows, -(-columns * scheme.bits // 32))
        and scale.shape in ((rows, groups), (rows,) if groups == 1 else ())
    )


def _shape(name: str, tensor: StoredTensor) -> tuple[int, int]:
    """The rows and columns that a tensor of two whole numbers holds."""
    size = {"I64": 8, "I32": 4}.get(tensor.dtype)
    if size is None or tensor.shape != (2,):
        raise CheckpointError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not two whole numbers", DOWNLOAD_HINT)
    with open(tensor.file, "rb") as file:
        file.seek(tensor.start)
        data = file.read(2 * size)
    rows, columns = (int.from_bytes(data[at : at + size], "little", signed=True) for at in (0, size))
    return rows, columns
