"""Reads GPTQ: integers of 2, 3, 4 or 8 bits with zero points, packed along the inputs. AutoRound also writes this layout.

NAME.weight is NAME.qweight [inputs * bits / 32, outputs], NAME.qzeros [groups, outputs * bits / 32], NAME.scales [groups, outputs] and
NAME.g_idx [inputs], the group of each column. The first version of the layout stores zero points reduced by 1. A module may differ from
config.json in bits and group size, so the reader takes both from the shapes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tgen.checkpoint.quantised.integers import Grouped, Integers
from tgen.checkpoint.quantised.method import SCALES, Allowed, Form, Method, Tensors, check, folded, misfit, refused
from tgen.checkpoint.quantised.order import column_groups
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import UnsupportedError
from tgen.files import DOWNLOAD_HINT

BITS = (2, 3, 4, 8)
# The keys that change what the tensors mean, with the values that are implemented, and the other keys that AutoGPTQ, GPTQModel,
# transformers and AutoRound write.
CONFIG: Allowed = {
    "bits": BITS,
    "checkpoint_format": ("gptq", "gptq_v2"),
    "format": ("gptq", "gptq_v2"),
    "pack_dtype": ("int32",),
    "data_type": ("int",),
    **dict.fromkeys(
        """
        act_group_aware autoround_version backend batch_size block_name_to_quantize cache_block_outputs damp_auto_increment damp_percent
        dataset desc_act disable_exllama dynamic exllama_config group_size hyb_act is_marlin_format lm_head max_input_length meta method
        model_file_base_name model_name_or_path model_seqlen module_name_preceding_first_block modules_in_block_to_quantize mse
        offload_to_disk pad_token_id quant_method quantizer static_groups sym tokenizer true_sequential use_cuda_fp16 use_exllama v2
        modules_to_not_convert
        """.split()
    ),
}
AUTOROUND: Allowed = {
    **CONFIG,
    "packing_format": ("auto_round:auto_gptq", "auto_round:gptq"),
    **dict.fromkeys(
        """
        act_bits act_data_type act_dynamic act_group_size act_sym amp block_name_to_quantize enable_minmax_tuning enable_norm_bias_tuning
        enable_quanted_input extra_config gradient_accumulate_steps iters low_gpu_mem_usage lr minmax_lr nsamples quant_block_list
        scale_dtype seqlen to_quant_block_names train_bs
        """.split()
    ),
}


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    if found.get("is_marlin_format"):
        raise refused("is_marlin_format", True)
    check(found, CONFIG)
    return _method(found)


def read_autoround(found: dict[str, Any]) -> Method:
    """The same for AutoRound's settings. Raises UnsupportedError for a setting that is not implemented."""
    check(found, AUTOROUND)
    backend = found.get("backend")
    if found.get("packing_format") is None and (not isinstance(backend, str) or "gptq" not in backend):
        raise refused("backend", backend)
    return _method(found)


def _method(found: dict[str, Any]) -> Method:
    size = found.get("group_size")
    if size is not None and (type(size) is not int or (size <= 0 and size != -1)):
        raise refused("group_size", size)
    second = "gptq_v2" in (found.get("checkpoint_format"), found.get("format"))
    weight = partial(_weight, size if size and size > 0 else None, 0 if second else 1, found.get("sym") is True)
    return partial(folded, forms=(Form(".qweight", (".qzeros", ".scales"), weight, optional=(".g_idx",)),))


def _weight(group: int | None, added: int, symmetric: bool, module: str, parts: Tensors) -> StoredTensor:
    """A matrix. `group` is the columns of a group in config.json, `added` is added to each zero point, `symmetric` as in Grouped."""
    words, zeros, scales, index = (parts.get(ending) for ending in (".qweight", ".qzeros", ".scales", ".g_idx"))
    assert words is not None and zeros is not None and scales is not None
    if [words.dtype, zeros.dtype] != ["I32", "I32"] or scales.dtype not in SCALES or not len(words.shape) == len(zeros.shape) == 2:
        raise misfit(module, parts, "a matrix of integers with scales and zero points")
    rows, groups = words.shape[1], zeros.shape[0]
    bits = next((bits for bits in BITS if rows and zeros.shape[1] == -(-rows * bits // 32)), None)
    if bits is None:
        raise UnsupportedError(f"{module}.qzeros {zeros} has no {', '.join(map(str, BITS))} bits for each of {rows} outputs", DOWNLOAD_HINT)
    columns = words.shape[0] * 32 // bits
    size = next((size for size in (group, columns) if size and -(-columns // size) == groups), columns // max(1, groups))
    if scales.shape != (groups, rows) or words.shape[0] * 32 % bits or not size or -(-columns // size) != groups:
        raise misfit(module, parts, f"a matrix of {rows} x {columns} in groups of columns")
    packed = Grouped(
        Integers(words.turned, bits, (rows, columns)),
        scales.turned,
        size,
        zeros=Integers(zeros, bits, (rows, groups), down=True),
        added=added,
        symmetric=symmetric,
        index=None if index is None else column_groups(f"{module}.g_idx", index, columns, size),
    )
    return StoredTensor(words.file, "F32", (rows, columns), packed=packed)
