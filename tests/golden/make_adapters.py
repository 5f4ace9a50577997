"""Write the golden adapters: what peft saves for adapters with random weights on golden checkpoints, and the logits it computes with them.

Development only: `python -m tests.golden.make_adapters [NAME]...` needs peft and transformers 5, which the tests do not.
"""

# peft is hardly typed, and need not be installed where the types are checked.
# mypy: ignore-errors

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

HERE = Path(__file__).parent
PLACE = HERE / "adapters"
FIRST, LENGTH = 8, 6
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
# Only bases in half precision: peft saves some of their tensors along, and the files have half precision, to be small.
# The base, the settings of peft, and how many tokens the vocabulary is longer than the base's.
ADAPTERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "patterns": (
        "granite",
        {
            "target_modules": ATTENTION + FEED_FORWARD,
            "rank_pattern": {"q_proj": 3, "layers.1.mlp.down_proj": 1},
            "alpha_pattern": {"up_proj": 9, "^model.layers.0.self_attn.v_proj": 1},
            "use_rslora": True,
        },
        0,
    ),
    "fused": ("gpt2_inverse", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True, "bias": "all"}, 0),
    "dora": ("exaone4", {"target_modules": [*ATTENTION, "down_proj", "embed_tokens"], "use_dora": True}, 0),
    "embedding": ("granite", {"target_modules": ["embed_tokens", "v_proj"]}, 0),
    "head": ("granite", {"target_modules": ["lm_head", "v_proj"]}, 0),
    "copy": ("granite", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "norm"]}, 0),
    "resized": ("granite", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, 3),
    "encoder": ("bert", {"target_modules": ["query", "value", "dense"]}, 0),
    "encoder_decoder": ("t5", {"target_modules": ["q", "v", "wi", "wo"]}, 0),
}
HEADS = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}


def main() -> None:
    """Write every folder anew, or those whose names are given."""
    torch.set_num_threads(1)
    for name, (base, settings, more) in ADAPTERS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = PLACE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = adapted(HERE / base, settings, more, seed=len(name))
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        weights = folder / "adapter_model.safetensors"
        save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
        path = folder / "adapter_config.json"
        config = {**json.loads(path.read_text("utf-8")), "base_model_name_or_path": f"org/{base}"}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        np.savez_compressed(folder / "golden.npz", **reference(model))


def adapted(folder: Path, settings: dict[str, Any], more: int = 0, seed: int = 0) -> Any:
    """The model of a folder with an adapter, whose every parameter is random: peft's own start changes nothing."""
    kind = AutoConfig.from_pretrained(folder).model_type
    model = HEADS.get(kind, AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if more:
        model.resize_token_embeddings(model.config.vocab_size + more, mean_resizing=False)
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 3, **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                changed = parameter * (1 + 0.2 * noise) if "magnitude" in parameter_name else parameter + 0.1 * noise
                parameter.copy_(changed.half())
    return model.eval()


@torch.inference_mode()
def reference(model: Any, seed: int = 1) -> dict[str, np.ndarray]:
    """Random ids, and the logits that the model computes without merging."""
    random = np.random.default_rng(seed)
    vocab = model.config.vocab_size
    arrays = {"ids": random.integers(FIRST, vocab, size=LENGTH)}
    ids = torch.from_numpy(arrays["ids"])[None]
    if model.config.is_encoder_decoder:
        arrays["source"] = random.integers(FIRST, vocab, size=LENGTH)
        logits = model(input_ids=torch.from_numpy(arrays["source"])[None], decoder_input_ids=ids).logits
    else:
        logits = model(input_ids=ids).logits
    return {**arrays, "logits": logits[0].float().numpy()}


if __name__ == "__main__":
    main()
