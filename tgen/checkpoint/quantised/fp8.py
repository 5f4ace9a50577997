"""Reads FP8: matrices NAME.weight of floats of 8 bits with scales NAME.weight_scale_inv (DeepSeek's name) or NAME.weight_scale.

Despite its name, `weight_scale_inv` is a factor as `weight_scale` is. FBGEMM's and ModelOpt's folders in FP8 differ only in their settings.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tgen.checkpoint.quantised.floats import scaled
from tgen.checkpoint.quantised.method import Allowed, Form, Method, Tensors, check, folded, refused
from tgen.checkpoint.stored import StoredTensor

CONFIG: Allowed = {
    "fmt": ("e4m3", "float8_e4m3fn", "e5m2"),
    "scale_fmt": ("ue8m0", "float"),
    "activation_scheme": ("dynamic", "static"),
    "dequantize": (False, True),
    "is_checkpoint_fp8_serialized": (True,),
    **dict.fromkeys("quant_method weight_block_size modules_to_not_convert ignored_layers activation_scale_ub kv_cache_scheme".split()),
}
MODELOPT: Allowed = {
    "quant_algo": ("FP8", "FP8_PER_CHANNEL_PER_TOKEN"),
    **dict.fromkeys("quant_method producer kv_cache_quant_algo kv_cache_scheme exclude_modules ignore config_groups".split()),
}


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    check(found, CONFIG)
    size = found.get("weight_block_size")
    if size is None:
        return _method(None)
    if not isinstance(size, list) or len(size) != 2 or not all(type(one) is int and one > 0 for one in size):
        raise refused("weight_block_size", size)
    return _method((size[0], size[1]))


def read_modelopt(found: dict[str, Any]) -> Method:
    """The same for ModelOpt's settings. Raises UnsupportedError for a setting that is not implemented."""
    check(found, MODELOPT)
    return _method(None)


def _method(block: tuple[int, int] | None) -> Method:
    return partial(
        folded, forms=[Form(scale, (".weight",), partial(_weight, block, scale)) for scale in (".weight_scale_inv", ".weight_scale")]
    )


def _weight(block: tuple[int, int] | None, scale: str, module: str, parts: Tensors) -> StoredTensor:
    return scaled(module, parts, parts[".weight"], parts[scale], block)
