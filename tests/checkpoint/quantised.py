"""Model folders for tests of quantising: one in floats with matrices of whole groups, and the same with integers of any kind."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

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


def with_integers(
    target: Path, bits: int, group: int | None, weights: dict[str, Any] | None = None, scales: torch.dtype = torch.bfloat16
) -> tuple[Path, Path]:
    """The model "llama" in two folders: the layers' matrices as integers, and the same numbers as floats. None is one group for a row.

    `weights` are further keys of the group's weights in config.json.
    """
    source = floats("llama", torch.float32)
    stored = load_file(source / "model.safetensors")
    as_integers, as_floats = {}, dict(stored)
    for name, tensor in stored.items():
        if ".layers." not in name or tensor.ndim != 2:
            as_integers[name] = tensor
            continue
        rows, columns = tensor.shape
        size = columns if group is None else group
        groups = tensor.reshape(rows, -1, size)
        scale = (groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(scales).float()
        integers = (groups / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        as_floats[name] = (integers * scale).reshape(rows, columns)
        offset = (integers.reshape(rows, columns).numpy() + 2 ** (bits - 1)).astype(np.uint32)
        each = 32 // bits
        offset = np.pad(offset, ((0, 0), (0, -columns % each))).reshape(rows, -1, each)
        words = (offset << (np.arange(each, dtype=np.uint32) * bits)).sum(-1).astype(np.uint32)
        as_integers |= {
            f"{name}_packed": torch.from_numpy(words.view(np.int32)),
            f"{name}_scale": scale[..., 0].to(scales).contiguous(),
            f"{name}_shape": torch.tensor([rows, columns]),
        }
    for folder in (target / "integers", target / "floats"):
        shutil.copytree(source, folder)
    save_file(as_integers, target / "integers" / "model.safetensors", {"format": "pt"})
    save_file({name: tensor.contiguous() for name, tensor in as_floats.items()}, target / "floats" / "model.safetensors", {"format": "pt"})
    scheme: dict[str, Any] = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group" if group else "channel"}
    scheme |= {"group_size": group, **(weights or {})}
    quantization = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}}, "ignore": ["lm_head"]}
    quantization |= {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}
    edit_config(target / "integers", quantization_config=quantization)
    return target / "integers", target / "floats"


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
