"""Experts as folders hold them: one by one, in stacks, and packed to four bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.mapped import MappedFiles, read_parameter
from tgen.checkpoint.quantised.mxfp4 import unpacked
from tgen.errors import CheckpointError, UnsupportedError, UsageError
from tgen.executors.open import open_executor, why_torch
from tgen.options import RunOptions
from tgen.tasks.quantising import quantisable

CopyGolden = Callable[[str], Path]
STACKED = {
    "mixtral": (("w1", "w3", "w2"), "block_sparse_moe", {"block_sparse_moe.gate.": "mlp.gate."}),
    "phimoe": (("w1", "w3", "w2"), "block_sparse_moe", {"block_sparse_moe.gate.": "mlp.router."}),
    "qwen2_moe": (("gate_proj", "up_proj", "down_proj"), "mlp", {}),
    "ernie4_5_moe": (("gate_proj", "up_proj", "down_proj"), "mlp", {"mlp.moe_statics": "mlp.gate.moe_statics"}),
    "glm4_moe": (("gate_proj", "up_proj", "down_proj"), "mlp", {}),
}


def numbers(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    files = MappedFiles()
    return {name: read_parameter(name, match, files)[0].copy() for name, match in checkpoint.matches.parameters.items()}


@pytest.mark.parametrize("name", STACKED)
def test_stacked_experts_are_the_same_model(name: str, copy_golden: CopyGolden) -> None:
    """So transformers writes them if it is asked not to undo its conversions."""
    parts, block, renamed = STACKED[name]
    folder = copy_golden(name)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(3):
        prefix = f"model.layers.{layer}.{block}.experts."
        count = len([key for key in tensors if key.startswith(prefix) and parts[0] in key])
        if count:
            gate, up, down = ([tensors.pop(f"{prefix}{number}.{part}.weight") for number in range(count)] for part in parts)
            fused = [torch.cat(pair) for pair in zip(gate, up, strict=True)]
            tensors[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.stack(fused)
            tensors[f"model.layers.{layer}.mlp.experts.down_proj"] = torch.stack(down)
    for old, new in renamed.items():
        tensors = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    found, expected = numbers(open_checkpoint(folder)), numbers(open_checkpoint(GOLDEN / name))
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(found[key], array), key


def test_a_stack_of_another_size_is_refused(copy_golden: CopyGolden) -> None:
    folder = copy_golden("granitemoe")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_local_experts": 3}))
    with pytest.raises(CheckpointError, match="has the shape"):
        open_checkpoint(folder)


def packed_folder(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """GPT-OSS with a width of 32, whose experts are packed; and the tensors that they are packed from, plain."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64}
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    random = torch.Generator().manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    shapes = {"gate_up_proj": (4, 128, 1, 16), "down_proj": (4, 32, 2, 16)}
    plain = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        part = key.rsplit(".", 1)[1]
        if ".experts." in key and not part.endswith("_bias"):
            tensors[f"{key}_blocks"] = torch.randint(0, 256, shapes[part], generator=random, dtype=torch.uint8)
            tensors[f"{key}_scales"] = torch.randint(120, 126, shapes[part][:3], generator=random, dtype=torch.uint8)
            plain[key] = f"{key}_blocks"
            continue
        shape = list(tensor.shape)
        if part == "gate_up_proj_bias":
            shape = [4, 128]
        elif key.endswith("o_proj.weight") or (len(shape) == 1 and shape == [16] and "q_proj" not in key):
            shape[0] = 32
        elif shape[-1] == 16 and "q_proj.bias" not in key:
            shape[-1] = 32
        tensors[key] = 0.3 * torch.randn(shape, generator=random).bfloat16()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder, tensors


def test_packed_experts_are_those_that_transformers_unpacks(copy_golden: CopyGolden) -> None:
    """Its unpacked form, stored plainly, is the same model to the last bit."""
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    folder, tensors = packed_folder(copy_golden("gpt_oss"))
    packed = open_checkpoint(folder)
    assert packed.matches.number_format == "BF16"
    found = numbers(packed)
    for key in [key for key in tensors if key.endswith("_blocks")]:
        name = key.removesuffix("_blocks")
        tensors[name] = mxfp4.convert_moe_packed_tensors(tensors.pop(key), tensors.pop(f"{name}_scales")).contiguous()
    save_file(tensors, folder / "model.safetensors")
    expected = numbers(open_checkpoint(folder))
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_every_number_of_four_bits_at_every_scale() -> None:
    """Against their definition, in float64; those that bfloat16 cannot hold become 0 or infinite."""
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    nibbles = np.arange(32) % 16
    blocks = np.broadcast_to((nibbles[0::2] | nibbles[1::2] << 4).astype(np.uint8), (255, 1, 16))
    found = unpacked(blocks, np.arange(255, dtype=np.uint8)[:, None])
    exact = np.where(nibbles < 8, 1, -1) * values[nibbles % 8] * 2.0 ** (np.arange(255)[:, None] - 127)
    exact = np.where(np.abs(exact) < 2.0**-126, 0, np.where(np.abs(exact) >= 2.0**128, np.copysign(np.inf, exact), exact))
    assert np.array_equal((found.astype(np.uint32) << 16).view(np.float32), exact.astype(np.float32))


@pytest.mark.parametrize("damage", ["lacks", "shape", "type"])
def test_damaged_scales_are_refused(damage: str, copy_golden: CopyGolden) -> None:
    folder, tensors = packed_folder(copy_golden("gpt_oss"))
    name = "model.layers.1.mlp.experts.down_proj_scales"
    scales = tensors.pop(name)
    if damage != "lacks":
        tensors[name] = scales[:, :, :1].contiguous() if damage == "shape" else scales.float()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="lack the tensor" if damage == "lacks" else "blocks of 16 bytes"):
        open_checkpoint(folder)


def test_packed_experts_run_with_integers_and_are_not_quantised_again(copy_golden: CopyGolden) -> None:
    folder, _ = packed_folder(copy_golden("gpt_oss"))
    checkpoint = open_checkpoint(folder)
    with pytest.raises(UsageError, match="is quantised already"):
        quantisable(checkpoint)
    if why_torch(checkpoint.spec, RunOptions()) is None:
        states = []
        for options in (RunOptions(dtype="float32"), RunOptions(quantize="int8")):
            session = open_executor(checkpoint, options).open()
            session.admit([None])
            states.append(session.extend([[5, 9, 30, 12]]))
        assert 0 < np.abs(states[1] - states[0]).max() < 0.2 * np.abs(states[0]).max()


def test_keys_of_mxfp4_that_nobody_reads_are_refused(copy_golden: CopyGolden) -> None:
    folder, _ = packed_folder(copy_golden("gpt_oss"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["block_size"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"quantization_config\.block_size = 16"):
        open_checkpoint(folder)
