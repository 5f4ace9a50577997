"""Writes a model as a plain Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tgen.executors.torch.load import taken
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.families.table import inverse
from tgen.files import write_atomically, write_text


def save_weights(folder: Path, config: dict[str, Any], model: Transformer, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors in `dtype`, with the names that transformers gives to the tensors.

    Raises ValueError for a family whose checkpoints fuse matrices; the Llama layout, which `tgen train` uses, does not.
    """
    table = find_family(Config(config).model_type).tensors(model.spec)
    parameters = model.state_dict()
    tensors = {}
    for ours, source in table.sources.items():
        put = inverse(source.take)
        if put is None:
            raise ValueError(f"cannot write the fused matrices of {model.spec.family}")
        tensors[source.name] = taken(parameters[ours].detach().cpu(), put).to(dtype).contiguous()
    save_tensors(folder, {**config, "dtype": str(dtype).removeprefix("torch.")}, tensors)


def save_tensors(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write config.json, and model.safetensors with tensors whose names must be those of transformers."""
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_json(folder / "config.json", config)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an indented JSON file, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
