"""Random models of the architectures that llama.cpp knows, as Hugging Face folders and as GGUF files."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.checkpoint.gguf_files import write_gguf
from tests.checkpoint.test_gguf import GIVEN
from tests.conftest import GOLDEN, config_of

# Rows of whole blocks of 256 numbers, as K types need them.
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 288,
    "max_position_embeddings": 512,
    "num_hidden_layers": 2,
}
HEADS = SIZES | {"head_dim": 64}
MIXTURE: dict[str, Any] = {
    "moe_intermediate_size": 256,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "use_sliding_window": False,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
# Of the goldens' configs, the keys to change: sizes, and what llama.cpp takes as given.
CHANGES: dict[str, dict[str, Any]] = {
    "ernie4_5": HEADS | {"use_bias": False},
    "gemma": HEADS,
    "gemma2": HEADS | {"query_pre_attn_scalar": 64},
    "gemma3": HEADS
    | {"num_hidden_layers": 4, "query_pre_attn_scalar": 64, "layer_types": None, "sliding_window": 32, "rope_parameters": None}
    | {"rope_scaling": None, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "gpt2": {"n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_ctx": 512, "vocab_size": 288},
    "granite": HEADS,
    "llama2": HEADS | {"num_key_value_heads": 4, "attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-5},
    "llama3": HEADS,
    "mistral": HEADS | {"sliding_window": None},
    "mixtral": HEADS | {"sliding_window": None},
    "olmo2": HEADS,
    "phi3": HEADS | {"partial_rotary_factor": 1.0, "sliding_window": None},
    "qwen2": HEADS | {"rope_scaling": None, "vocab_size": 304},  # its tokenizer class adds a token
    "qwen2_moe": SIZES | MIXTURE | {"norm_topk_prob": False, "shared_expert_intermediate_size": 256},
    "qwen3": HEADS,
    "qwen3_moe": HEADS | MIXTURE | {"norm_topk_prob": True},
    "seed_oss": HEADS | {"attention_out_bias": False, "mlp_bias": False},
    "smollm3": HEADS | GIVEN["smollm3"] | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "starcoder2": SIZES | {"sliding_window": None},
}
TOKENIZER = "llama3"  # of all models: some goldens have one without merges, which llama.cpp does not load
OPENED_PRE_TOKENIZER = "gpt-2"  # the converter refuses tokenizers that it has no name for, such as those of goldens


def random_folder(name: str, seed: int, folder: Path) -> None:
    """A folder of a golden's family. Its weights keep a vector's size from layer to layer about, so that its text varies."""
    folder.mkdir()
    config = {**config_of(name), **CHANGES[name], "dtype": "float32"}
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                parameter.normal_(0.0 if key.endswith("bias") or name.startswith("gemma") else 1.0, 0.1, generator=random)
            elif any(table in key for table in ("embed", "wte", "wpe")):
                parameter.normal_(0, 0.3, generator=random)
            else:
                inputs = parameter.shape[-2 if name == "gpt2" and ".c_" in key else -1]
                parameter.normal_(0, 1.5 * inputs**-0.5, generator=random)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # with the goldens' own spelling of its keys
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / TOKENIZER / file, folder)


def gguf_file(folder: Path, converter: Path | None) -> Path:
    """The folder's model in float16: written with the gguf package, or by llama.cpp's converter, whose source folder is given."""
    path = folder.with_name(f"{folder.name}-F16.gguf")
    if converter is None:
        write_gguf(folder, path, "F16")
        return path
    command = [sys.executable, "-m", __spec__.name, str(converter), str(folder), "--outtype", "f16", "--outfile", str(path)]
    paths = os.pathsep.join(filter(None, (str(converter / "gguf-py"), os.environ.get("PYTHONPATH"))))  # it needs the package it came with
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        raise RuntimeError(f"the converter refuses {folder.name}: {done.stderr.strip().splitlines()[-1]}")
    return path


def convert(source: Path, arguments: list[str]) -> None:
    """Run llama.cpp's converter with a name for any tokenizer."""
    sys.path.insert(0, str(source))
    from conversion import base  # type: ignore[import-not-found]

    for kind in vars(base).values():
        if isinstance(kind, type) and "get_vocab_base_pre" in vars(kind):
            kind.get_vocab_base_pre = lambda _, __: OPENED_PRE_TOKENIZER  # type: ignore[attr-defined]
    script = source / "convert_hf_to_gguf.py"
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2:])
