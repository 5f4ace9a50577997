"""Model folders for tests of quantising: one in floats with matrices of whole groups, and the same with integers of any kind."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.quantisers import Quantised, words
from tests.conftest import GOLDEN, config_of
from tgen.executors.torch.save import save_weights
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family

LLAMA = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96, "num_key_value_heads": 2}
# Of the goldens' configs, the keys to change; a golden without changes is taken as it is.
FLOATS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama3", LLAMA),
    "untied": ("llama3", {**LLAMA, "tie_word_embeddings": False}),
    "t5": ("t5", {"d_model": 64, "d_kv": 16, "d_ff": 96}),
    "bert": ("bert", {"hidden_size": 64, "intermediate_size": 96}),
}
PLACE = tempfile.TemporaryDirectory(prefix="quantised-models-", ignore_cleanup_errors=True)


@functools.cache
def floats(name: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """The folder of a model in floats."""
    if name not in FLOATS:
        return GOLDEN / name
    golden, changes = FLOATS[name]
    return random_folder(golden, changes, Path(PLACE.name, f"{name}-{str(dtype)[6:]}"), dtype, len(name))


def random_folder(golden: str, changes: dict[str, Any], folder: Path, dtype: torch.dtype, seed: int) -> Path:
    """A folder of a golden's family, with other keys in its config.json and random weights."""
    config = {**config_of(golden), **changes}
    model = Transformer(find_family(config["model_type"]).spec(Config(config))).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            parameter.normal_(0, 1.0 if key == "embedding.weight" else 0.5 * parameter.shape[-1] ** -0.5, generator=random)
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (GOLDEN / golden / file).exists():
            shutil.copy(GOLDEN / golden / file, folder)
    save_weights(folder, config, model, dtype)
    return folder


def in_two_folders(
    target: Path, quantise: Callable[[torch.Tensor], Quantised], config: dict[str, Any], source: str = "llama"
) -> tuple[Path, Path]:
    """A model in two folders: the layers' matrices as `quantise` stores them, and the same numbers as floats.

    `config` is what config.json then says more.
    """
    stored = load_file(floats(source, torch.float32) / "model.safetensors")
    stored_small, stored_floats = {}, dict(stored)
    for name, tensor in stored.items():
        if not (".layers." in name or ".h." in name) or tensor.ndim != 2:
            stored_small[name] = tensor
            continue
        parts, numbers = quantise(tensor.float())
        stored_small |= {f"{name.removesuffix('weight')}{part}": found.contiguous() for part, found in parts.items()}
        stored_floats[name] = numbers.contiguous()
    for name, tensors in {"quantised": stored_small, "floats": stored_floats}.items():
        shutil.copytree(floats(source, torch.float32), target / name)
        save_file(tensors, target / name / "model.safetensors", {"format": "pt"})
    edit_config(target / "quantised", **config)
    return target / "quantised", target / "floats"


def with_integers(
    target: Path, bits: int, group: int | None, weights: dict[str, Any] | None = None, scales: torch.dtype = torch.bfloat16
) -> tuple[Path, Path]:
    """The model "llama" in two folders, the first with symmetric integers. None is one group for a row.

    `weights` are further keys of the group's weights in config.json.
    """

    def quantise(matrix: torch.Tensor) -> Quantised:
        rows, columns = matrix.shape
        groups = matrix.reshape(rows, -1, columns if group is None else group)
        scale = (groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(scales).float()
        integers = (groups / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        offset = integers.reshape(rows, columns).numpy().astype(np.int64) + 2 ** (bits - 1)
        parts = {"weight_packed": words(offset, bits), "weight_scale": scale[..., 0].to(scales), "weight_shape": torch.tensor(matrix.shape)}
        return parts, (integers * scale).reshape(rows, columns)

    scheme: dict[str, Any] = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group" if group else "channel"}
    return in_two_folders(target, quantise, compressed_config({**scheme, "group_size": group, **(weights or {})}))


def compressed_config(weights: dict[str, Any], format_: str = "pack-quantized") -> dict[str, Any]:
    """What config.json says of a folder of compressed-tensors with one kind of weights."""
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    quantization = {"quant_method": "compressed-tensors", "format": format_, "quantization_status": "compressed"}
    return {"quantization_config": {**quantization, "config_groups": groups, "ignore": ["lm_head"]}}


def edit_config(folder: Path, file: str = "config.json", **changes: Any) -> None:
    """Change keys of a folder's config.json, or of another file."""
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
