"""Tensors of older programs and of training: what holds nothing is left aside, and what has an older name is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tgen.checkpoint.container import open_checkpoint


def test_a_value_head_beside_the_model_is_left_aside(copy_golden: Callable[[str], Path]) -> None:
    path = copy_golden("qwen3") / "model.safetensors"
    head = {"v_head.summary.weight": torch.ones(1, 16), "v_head.summary.bias": torch.ones(1)}
    save_file({**load_file(path), **head}, path)
    assert not any(name.startswith("v_head") for name in open_checkpoint(path.parent).matches.parameters)


def test_distilbert_has_norms_as_tensorflow_names_them(copy_golden: Callable[[str], Path]) -> None:
    path = copy_golden("distilbert") / "model.safetensors"
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(path)
    for new, old in older.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert any("gamma" in name for name in tensors)
    save_file(tensors, path)
    open_checkpoint(path.parent)
