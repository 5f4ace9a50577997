"""The forms that a folder's weights can have, each written from the same tensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WEIGHTS, BIN = "model.safetensors", "pytorch_model.bin"


def as_bin(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, folder / BIN)


def as_bin_of_2019(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, folder / BIN, _use_new_zipfile_serialization=False)


def as_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    files = {name: f"part-{number % 3}.safetensors" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def as_bin_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    files = {name: f"part-{number % 3}.bin" for number, name in enumerate(tensors)}
    for file in set(files.values()):
        torch.save({name: tensor for name, tensor in tensors.items() if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))


def as_file_with_odd_header(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The format does not require the numbers to start at a multiple of their size."""
    save_file(tensors, folder / WEIGHTS)
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    (folder / WEIGHTS).write_bytes((length + 3).to_bytes(8, "little") + content[8 : 8 + length] + b"   " + content[8 + length :])
