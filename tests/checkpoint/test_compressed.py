"""Folders with integers in the compressed-tensors format: the numbers they stand for, and clear refusals of all else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.quantised import edit_config, with_integers
from tests.executors.native.models import LIBRARY
from tests.executors.native.test_packing import unpacked
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError, UnsupportedError
from tgen.executors.native import interface as c
from tgen.executors.open import open_executor
from tgen.executors.session import LoadedModel
from tgen.options import Quantize, RunOptions

TEXT = [5, 17, 200, 42, 9, 1]


def executor(folder: Path, choice: Any, quantize: Quantize = "none", dtype: Any = "float32") -> LoadedModel:
    return open_executor(open_checkpoint(folder), RunOptions(dtype=dtype, executor=choice, quantize=quantize))


def logits(model: LoadedModel) -> np.ndarray:
    session = model.open()
    session.admit([None])
    found: np.ndarray = session.extend([TEXT])[0]
    return found


@pytest.mark.parametrize("scales", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_folder_of_integers_is_the_model_of_their_numbers(tmp_path: Path, bits: int, group: int | None, scales: torch.dtype) -> None:
    """On torch to the rounding of float32; on the native executor, the panels hold the same numbers, with scales in float16."""
    integers, floats = with_integers(tmp_path, bits, group, scales=scales)
    expected = logits(executor(floats, "torch"))
    assert np.allclose(logits(executor(integers, "torch")), expected, atol=1e-5 * np.abs(expected).max())
    if LIBRARY is None:
        return
    native, reference = executor(integers, "native"), executor(floats, "native")
    found = logits(native)
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()  # the rounding of activations
    for name in ("decoder.layers.0.mixer.q", "decoder.layers.1.feed_forward.down"):
        matrix = native.model.weights.matrix(name)  # type: ignore[attr-defined]
        wanted = reference.model.weights.matrix(name).data  # type: ignore[attr-defined]
        assert matrix.format == (c.INT4 if bits == 4 else c.INT8)
        assert np.allclose(unpacked(matrix), wanted, rtol=5e-4 if scales == torch.float32 else 0, atol=0)
    again = logits(executor(integers, "native", "int8"))  # the embedding is packed too, the integers stay
    assert 0 < np.abs(again - found).max() < 0.03 * np.abs(expected).max()


@pytest.mark.skipif(LIBRARY is None, reason="no native library")
def test_scales_that_float16_cannot_hold_are_kept_in_floats(tmp_path: Path) -> None:
    integers, floats = with_integers(tmp_path, 4, 32, scales=torch.float32)
    for folder, kind in ((integers, "_scale"), (floats, "")):
        stored = load_file(folder / "model.safetensors")
        stored[f"model.layers.0.mlp.down_proj.weight{kind}"] *= 2.0**-30
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
    native = executor(integers, "native")
    assert native.model.weights.matrix("decoder.layers.0.feed_forward.down").format == c.FLOAT32  # type: ignore[attr-defined]
    expected = logits(executor(floats, "torch"))
    assert np.abs(logits(native) - expected).max() < 0.03 * np.abs(expected).max()


def refusal(folder: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        open_checkpoint(folder)
    assert (caught.value.hint or "").startswith("implemented: AWQ")
    return caught.value.message


@pytest.mark.parametrize("method", [*"hqq aqlm quanto eetq torchao higgs vptq spqr bitnet exl2 exl3 x".split(), None])
def test_other_methods_are_refused_by_name(tmp_path: Path, method: str | None) -> None:
    folder, _ = with_integers(tmp_path, 4, 32)
    edit_config(folder, quantization_config={"quant_method": method, "bits": 4})
    assert refusal(folder) == f"config.json: quantization_config.quant_method = {method!r} is not implemented"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "marlin-24"),
        ("format", "nvfp4-pack-quantized"),
        ("sparsity_config", {"format": "sparse-24-bitmask"}),
        ("transform_config", {"config_groups": {"x": {}}}),
        ("config_groups", {}),
        ("config_groups", ["x"]),
        ("config_groups.group_0", "x"),
        ("config_groups.group_0.weights", None),
        ("config_groups.group_0.format", "nvfp4-pack-quantized"),
        ("config_groups.group_0.weights.num_bits", 16),
        ("config_groups.group_0.weights.num_bits", "4"),
        ("config_groups.group_0.weights.symmetric", "no"),
        ("config_groups.group_0.weights.strategy", "tensor_group"),
        ("config_groups.group_0.weights.group_size", 0),
        ("config_groups.group_0.weights.group_size", True),
        ("config_groups.group_0.weights.dynamic", True),
        ("config_groups.group_0.weights.actorder", "random"),
        ("config_groups.group_0.weights.something_new", 1),
        ("something_new", {"x": 1}),
    ],
)
def test_other_kinds_of_integers_are_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    folder, _ = with_integers(tmp_path, 4, 32)
    values = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    *path, last = key.split(".")
    inner = values
    for name in path:
        inner = inner[name]
    inner[last] = value
    edit_config(folder, quantization_config=values)
    name = key if key != "config_groups.group_0" else "config_groups.group_0.weights"
    assert refusal(folder).startswith(f"config.json: quantization_config.{name} = ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_proj.weight_scale": None}, "the weights lack the tensor model.layers.0.self_attn.q_proj.weight_scale"),
        ({"q_proj.weight_shape": None}, "the weights lack the tensor model.layers.0.self_attn.q_proj.weight_shape"),
        ({"q_proj.weight_packed": None}, "lack the tensor model.layers.0.self_attn.q_proj.weight"),
        ({"q_proj.weight": torch.zeros(64, 64)}, "hold both model.layers.0.self_attn.q_proj.weight and its quantised form"),
        ({"q_proj.weight_shape": torch.tensor([64, 65])}, r"q_proj: weight_packed I32 \[64, 8\], .* do not fit a matrix of 64 x 65"),
        ({"q_proj.weight_shape": torch.tensor([-64, -64])}, "do not fit a matrix of -64 x -64"),
        ({"q_proj.weight_shape": torch.tensor([64.0, 64.0])}, r"weight_shape is F32 \[2\], not two whole numbers"),
        ({"q_proj.weight_scale": torch.zeros(64, 1)}, r"weight_scale F32 \[64, 1\], .* do not fit"),
        ({"q_proj.weight_scale": torch.full((64, 2), torch.nan)}, "hold NaN or infinity"),
        ({"q_proj.weight_zero_point": torch.zeros(8, 3, dtype=torch.int32)}, r"weight_zero_point I32 \[8, 3\] do not fit a matrix"),
        ({"q_proj.weight_g_idx": torch.zeros(63, dtype=torch.int32)}, r"weight_g_idx is I32 \[63\], not a whole number for each"),
        ({"q_proj.weight_g_idx": torch.arange(64, dtype=torch.int32)}, "weight_g_idx names groups beyond the 2 that have scales"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str) -> None:
    folder, _ = with_integers(tmp_path, 4, 32)
    stored = load_file(folder / "model.safetensors")
    for end, tensor in changes.items():
        name = f"model.layers.0.self_attn.{end}"
        if tensor is None:
            del stored[name]
        else:
            stored[name] = tensor
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    for choice in ("torch", *(["native"] if LIBRARY else [])):
        with pytest.raises(CheckpointError) as caught:
            executor(folder, choice)
        assert re.search(message, caught.value.message), caught.value.message
        assert caught.value.hint
