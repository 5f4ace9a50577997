"""Reads AWQ in the layout "GEMM": integers of 4 bits with zero points, packed along the outputs in AWQ's own order.

NAME.weight is NAME.qweight [inputs, outputs / 8], NAME.qzeros [groups, outputs / 8] and NAME.scales [groups, outputs].
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tgen.checkpoint.quantised.integers import Grouped, Integers
from tgen.checkpoint.quantised.method import SCALES, Allowed, Form, Method, Tensors, check, folded, misfit, refused
from tgen.checkpoint.stored import StoredTensor

BITS = 4
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs each place of a word holds
# The files of "exllama", "ipex" and AutoAWQ's other kernels for this layout are the same: these kernels repack the words on loading.
VERSIONS = ("gemm", "GEMM", "exllama", "ipex")
CONFIG: Allowed = {
    "bits": (BITS,),
    "w_bit": (BITS,),
    "version": VERSIONS,
    "format": VERSIONS,
    "backend": ("autoawq", "auto_round:auto_awq", "auto_round:awq", "auto", "gemm"),
    "packing_format": ("auto_round:auto_awq", "auto_round:awq"),
    "data_type": ("int",),
    "checkpoint_format": VERSIONS,
    "pack_dtype": ("int32",),
    **dict.fromkeys(
        """
        desc_act do_fuse dynamic exllama_config fuse_max_seq_len group_size lm_head meta modules_to_fuse modules_to_not_convert
        q_group_size quant_method sym zero_point
        """.split()
    ),
    **dict.fromkeys("act_bits autoround_version block_name_to_quantize extra_config iters seqlen nsamples".split()),
}


def read(found: dict[str, Any]) -> Method:
    """The method that `quantization_config` names. Raises UnsupportedError for a setting that is not implemented."""
    check(found, CONFIG)
    if found.get("zero_point") is False:
        raise refused("zero_point", False)
    return partial(folded, forms=(Form(".qweight", (".qzeros", ".scales"), _weight, optional=(".g_idx",)),))


def _weight(module: str, parts: Tensors) -> StoredTensor:
    words, zeros, scales = parts[".qweight"], parts[".qzeros"], parts[".scales"]
    if [words.dtype, zeros.dtype] != ["I32", "I32"] or scales.dtype not in SCALES or not len(words.shape) == len(zeros.shape) == 2:
        raise misfit(module, parts, "a matrix of integers with scales and zero points")
    columns, groups, rows = words.shape[0], zeros.shape[0], words.shape[1] * 32 // BITS
    if zeros.shape[1] != words.shape[1] or scales.shape != (groups, rows) or not groups or columns % groups:
        raise misfit(module, parts, f"a matrix of {rows} x {columns} in groups of columns")
    packed = Grouped(
        Integers(words, BITS, (rows, columns), down=True, order=ORDER),
        scales.turned,
        columns // groups,
        zeros=Integers(zeros, BITS, (rows, groups), down=True, order=ORDER),
    )
    return StoredTensor(words.file, "F32", (rows, columns), packed=packed)
