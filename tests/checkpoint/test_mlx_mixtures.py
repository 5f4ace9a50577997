"""Mixtures of experts as MLX stores them: each matrix of all experts of a layer in one stack, as floats or as integers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint import quantisers as q
from tests.checkpoint.quantised import edit_config, random_folder
from tests.checkpoint.test_compressed import logits
from tests.conftest import GOLDEN, config_of
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.mapped import MappedFiles, read_parameter
from tgen.checkpoint.matching import Matches
from tgen.executors.open import open_executor
from tgen.options import RunOptions

EXPERT = re.compile(r"decoder\.layers\.(\d+)\.feed_forward\.experts\.(\d+)\.(gate|up|down)\.weight")
BLOCKS = {
    **dict.fromkeys(("mixtral", "phimoe", "granitemoe", "granitemoehybrid"), "block_sparse_moe"),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "olmoe", "ernie4_5_moe", "glm4_moe", "deepseek_v2", "deepseek_v3", "qwen3_next"), "mlp"),
    "lfm2_moe": "feed_forward",
}
Tensors = dict[str, torch.Tensor]


def numbers(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    files = MappedFiles()
    return {name: read_parameter(name, match, files)[0].copy() for name, match in checkpoint.matches.parameters.items()}


def stacked(folder: Path, block: str) -> tuple[Tensors, list[str]]:
    """The tensors of a folder with those of experts in MLX's stacks, and the names of the stacks."""
    matches: Matches = open_checkpoint(folder).matches
    tensors, files, stacks = load_file(folder / "model.safetensors"), MappedFiles(), dict[str, dict[int, torch.Tensor]]()
    gone = {name for name in tensors if re.search(r"\.experts\.|\.(input|output)_linear\.", name) and "shared_mlp" not in name}
    for parameter, match in matches.parameters.items():
        if found := EXPERT.fullmatch(parameter):
            layer, number, part = found.groups()
            array = torch.from_numpy(np.ascontiguousarray(read_parameter(parameter, match, files)[0]))
            own = array.view(torch.bfloat16) if match.tensor.dtype == "BF16" else array
            stacks.setdefault(f"model.layers.{layer}.{block}.switch_mlp.{part}_proj.weight", {})[int(number)] = own
    made = {name: torch.stack([members[number] for number in sorted(members)]) for name, members in stacks.items()}
    return {**{name: tensor for name, tensor in tensors.items() if name not in gone}, **made}, list(made)


@pytest.mark.parametrize("name", BLOCKS)
def test_stacks_are_the_same_model(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / name, tmp_path / name)
    tensors, stacks = stacked(folder, BLOCKS[name])
    assert stacks
    save_file(tensors, folder / "model.safetensors")
    found, expected = numbers(open_checkpoint(folder)), numbers(open_checkpoint(GOLDEN / name))
    assert found.keys() == expected.keys()
    assert [key for key, array in expected.items() if not np.array_equal(found[key], array)] == []


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_stacks_of_integers_run(name: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "moe_intermediate_size": 32, "intermediate_size": 32, "head_dim": 16, "vocab_size": 288}
    whole = random_folder(name, {key: size for key, size in sizes.items() if key in config_of(name)}, tmp_path / "whole", torch.float32, 7)
    tensors, stacks = stacked(whole, BLOCKS[name])
    small, same = dict(tensors), dict(tensors)
    for stack in stacks:
        parts = [q.mlx(member.float(), 4, 32) for member in tensors[stack]]
        del small[stack]
        for ending in parts[0][0]:
            small[stack.removesuffix("weight") + ending] = torch.stack([part[ending] for part, _ in parts])
        same[stack] = torch.stack([exact for _, exact in parts])
    for place, own in (("small", small), ("same", same)):
        save_file(own, shutil.copytree(whole, tmp_path / place) / "model.safetensors")
    edit_config(tmp_path / "small", quantization={"group_size": 32, "bits": 4})
    found, expected = (
        logits(open_executor(open_checkpoint(tmp_path / place), RunOptions(threads=1, dtype="float32"))) for place in ("small", "same")
    )
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
