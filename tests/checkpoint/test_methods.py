"""Models in folders of every method: logits are those of the numbers that a folder stands for, and `tgen info` knows the memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint import quantisers as q
from tests.checkpoint.quantised import compressed_config, edit_config, in_two_folders
from tests.checkpoint.test_compressed import executor, logits
from tests.executors.native.models import LIBRARY
from tests.executors.native.test_packing import unpacked
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError, UnsupportedError
from tgen.executors.native import interface as c
from tgen.executors.native.forecast import forecast
from tgen.options import RunOptions

Quantise = Callable[[torch.Tensor], q.Quantised]
INTEGERS = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
FP8_ROWS = compressed_config({"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}, "float-quantized")


def gptq(bits: int, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": 32, **more}}


AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}}
BLOCKS = {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}}
# The quantiser, what config.json says, and the native format of the layers' matrices.
METHODS: dict[str, tuple[Quantise, dict[str, Any], int]] = {
    "gptq-2": (partial(q.gptq, bits=2, size=32), gptq(2, sym=True), c.INT4),
    "gptq-3": (partial(q.gptq, bits=3, size=32, symmetric=False), gptq(3, sym=False), c.INT4),
    "gptq-4": (partial(q.gptq, bits=4, size=32), gptq(4, sym=True), c.INT4),
    "gptq-4-asymmetric": (partial(q.gptq, bits=4, size=32, symmetric=False), gptq(4, sym=False), c.INT8),
    "gptq-4-mixed": (partial(q.gptq, bits=4, size=32, mixed=True), gptq(4, sym=True, desc_act=True), c.FLOAT16),
    "gptq-4-v2": (partial(q.gptq, bits=4, size=32, added=0), gptq(4, sym=True, checkpoint_format="gptq_v2"), c.INT4),
    "gptq-8": (partial(q.gptq, bits=8, size=32), gptq(8, sym=True), c.INT8),
    "gptq-8-asymmetric": (partial(q.gptq, bits=8, size=32, symmetric=False), gptq(8, sym=False), c.FLOAT16),
    "gptq-own-groups": (partial(q.gptq, bits=4, size=16, symmetric=False), gptq(4, dynamic={"x": {"group_size": 16}}), c.FLOAT16),
    "awq": (partial(q.awq, size=32), AWQ, c.INT8),
    "pack-quantized": (partial(q.compressed, bits=4, size=32), compressed_config(INTEGERS), c.INT8),
    "pack-quantized-mixed": (
        partial(q.compressed, bits=4, size=32, mixed=True),
        compressed_config({**INTEGERS, "actorder": "group"}),
        c.BFLOAT16,
    ),
    "fp8-blocks": (partial(q.fp8, block=(32, 32)), BLOCKS, c.BFLOAT16),
    "fp8-tensor": (
        partial(q.fp8, block=(1000, 1000), shape=()),
        {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}},
        c.BFLOAT16,
    ),
    "fp8-rows": (partial(q.fp8, block=(1, 1000), name="weight_scale"), FP8_ROWS, c.BFLOAT16),
    "fbgemm": (
        partial(q.fp8, block=(1, 1000), name="weight_scale"),
        {"quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}},
        c.BFLOAT16,
    ),
    "mlx": (partial(q.mlx, bits=4, size=32), {"quantization": {"group_size": 32, "bits": 4}}, c.FLOAT16),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_quantised_folder_is_the_model_of_its_numbers(name: str, tmp_path: Path) -> None:
    quantise, config, number_format = METHODS[name]
    quantised, floats = in_two_folders(tmp_path, quantise, config)
    expected = logits(executor(floats, "torch"))
    assert np.allclose(logits(executor(quantised, "torch")), expected, atol=1e-5 * np.abs(expected).max())
    if LIBRARY is None:
        return
    checkpoint = open_checkpoint(quantised)
    native, reference = executor(quantised, "native"), executor(floats, "native")
    if number_format not in (c.INT4, c.INT8):  # with --dtype float32, the numbers themselves
        assert np.allclose(logits(native), expected, atol=1e-5 * np.abs(expected).max())
    auto = executor(quantised, "native", dtype="auto")
    for module in ("decoder.layers.0.mixer.q", "decoder.layers.1.feed_forward.down"):
        assert auto.model.weights.matrix(module).format == number_format  # type: ignore[attr-defined]
        if number_format in (c.INT4, c.INT8):
            wanted = reference.model.weights.matrix(module).data  # type: ignore[attr-defined]
            np.testing.assert_array_equal(unpacked(native.model.weights.matrix(module)), wanted)  # type: ignore[attr-defined]
    held = auto.model.weights  # type: ignore[attr-defined]
    total = sum(matrix.data.nbytes for matrix in held._matrices.values()) + sum(vector.nbytes for vector in held._vectors.values())
    assert forecast(checkpoint, RunOptions()).weight_bytes == pytest.approx(total, rel=0.05)


def test_zero_points_that_belie_the_config_are_used(tmp_path: Path) -> None:
    """AutoGPTQ's `sym` means that they are in the middle; what the tensors hold counts."""
    quantised, floats = in_two_folders(tmp_path, partial(q.gptq, bits=4, size=32, symmetric=False), gptq(4, sym=True))
    expected = logits(executor(floats, "torch"))
    for choice in ("torch", *(["native"] if LIBRARY else [])):
        assert np.allclose(logits(executor(quantised, choice)), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("file", "values", "name"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False, "sym": True, "damp_percent": 0.01}, "gptq-4"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 32, "version": "GEMM", "zero_point": True}, "awq"),
        ("hf_quant_config.json", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}, "fp8-rows"),
    ],
)
def test_older_folders_name_their_method_in_a_file_of_its_own(file: str, values: dict[str, Any], name: str, tmp_path: Path) -> None:
    quantised, floats = in_two_folders(tmp_path, METHODS[name][0], {})
    edit_config(quantised, quantization_config=None)
    (quantised / file).write_text("{}")
    edit_config(quantised, file, **values)
    expected = logits(executor(floats, "torch"))
    assert np.allclose(logits(executor(quantised, "torch")), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5])
def test_biases_that_autogptq_adds_are_nothing_if_they_are_zero(value: float, tmp_path: Path) -> None:
    quantised, _ = in_two_folders(tmp_path, METHODS["gptq-4"][0], METHODS["gptq-4"][1])
    tensors = load_file(quantised / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.bias"] = torch.full((64,), value, dtype=torch.float16)
    save_file(tensors, quantised / "model.safetensors", {"format": "pt"})
    if value:
        with pytest.raises(CheckpointError, match=r"no place for: model\.layers\.0\.self_attn\.o_proj\.bias"):
            open_checkpoint(quantised)
    else:
        open_checkpoint(quantised)


def test_scales_of_activations_and_of_the_cache_are_not_read(tmp_path: Path) -> None:
    quantised, _ = in_two_folders(tmp_path, METHODS["fp8-tensor"][0], METHODS["fp8-tensor"][1])
    tensors = load_file(quantised / "model.safetensors")
    for ending in ("self_attn.q_proj.input_scale", "mlp.up_proj.activation_scale", "self_attn.k_scale", "self_attn.k_proj.output_scale"):
        tensors[f"model.layers.0.{ending}"] = torch.tensor(1.0)
    save_file(tensors, quantised / "model.safetensors", {"format": "pt"})
    open_checkpoint(quantised)


def test_a_matrix_that_the_family_stores_transposed_is_not_when_quantised(tmp_path: Path) -> None:
    """AutoGPTQ makes linear layers, [outputs, inputs], of GPT-2's matrices."""

    def quantise(matrix: torch.Tensor) -> q.Quantised:
        tensors, numbers = q.gptq(matrix.T, 4, 24)
        return tensors, numbers.T

    quantised, floats = in_two_folders(tmp_path, quantise, gptq(4, sym=True), "gpt2")
    expected = logits(executor(floats, "torch"))
    assert np.allclose(logits(executor(quantised, "torch")), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bitsandbytes", "awq", "gptq"])
def test_a_name_of_a_method_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    quantised, _ = in_two_folders(tmp_path, *METHODS["gptq-4"][:2])
    edit_config(quantised, quantization_config={"quant_method": [name]})
    with pytest.raises(UnsupportedError, match=r"quant_method = .* is not implemented"):
        open_checkpoint(quantised)


def test_zero_points_that_fit_no_number_of_bits_are_refused_with_a_hint(tmp_path: Path) -> None:
    quantised, _ = in_two_folders(tmp_path, *METHODS["gptq-4"][:2])
    tensors = load_file(quantised / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.qzeros"
    save_file({**tensors, name: torch.cat([tensors[name]] * 3, dim=1)}, quantised / "model.safetensors")
    with pytest.raises(UnsupportedError, match=r"qzeros .* bits for each of 96 outputs") as caught:
        open_checkpoint(quantised)
    assert caught.value.hint


def test_a_tensor_of_a_hundred_axes_is_refused(tmp_path: Path) -> None:
    folder, _ = in_two_folders(tmp_path, *METHODS["mlx"][:2])
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.scales"
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name]["shape"] = [1] * 100 + list(tensors[name].shape)
    written = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    with pytest.raises(CheckpointError, match="is damaged: a tensor has more than 8 axes"):
        open_checkpoint(folder)
