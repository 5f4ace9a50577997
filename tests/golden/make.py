"""Write the golden checkpoints: tiny models of each family with random weights, and the logits that transformers gives for them.

Development only: it needs transformers 5, which the tests do not. Running it twice writes the same bytes.
"""

# transformers is hardly typed, and need not be installed where the types are checked.
# mypy: ignore-errors

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from tgen.train.vocabulary import learn_tokenizer, save_tokenizer

HERE = Path(__file__).parent
VOCAB, CONTEXT, LENGTH, PROMPTS = 288, 64, 24, (2, 5, 9)
SENTENCES = [
    "Once upon a time there was a little model that could tell stories.",
    "The cat sat on the mat, and the dog looked at the cat.",
    "Il était une fois une petite fille; she said: “I can see 2 birds!”",
]
# Every number differs from what a family would assume: an epsilon of 1e-5 that is not read would not show.
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {
    **TOKENS,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 0.05,
    "tie_word_embeddings": False,
}
GPT2 = {**TOKENS, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "layer_norm_epsilon": 0.05}
BLOOM = {**TOKENS, "n_layer": 2, "layer_norm_epsilon": 0.05}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 50.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # Small enough that some rotations are slowed, some kept and some blended.
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True)
class Golden:
    """A checkpoint to write: what transformers is asked for, and the ways of real folders that it shall show."""

    model_type: str
    config: dict[str, Any]
    dialect: int = 5
    dtype: torch.dtype = torch.float32
    layout: str = "whole"  # or sharded, bin, bare (names without the family's prefix, masks stored: the first GPT-2)


GOLDENS = {
    "gpt2": Golden("gpt2", GPT2, dialect=4, layout="bare"),
    # With the optional biases, which no other golden has.
    "llama2": Golden("llama", {**LLAMA, "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}, dialect=4, layout="bin"),
    "llama3": Golden("llama", {**LLAMA, "head_dim": 8, "tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}, layout="sharded"),
    "mistral": Golden("mistral", {**LLAMA, "sliding_window": 6, "rope_parameters": {"rope_theta": 500.0}}, dialect=4),
    "qwen2": Golden(
        "qwen2",
        {
            **LLAMA,
            "tie_word_embeddings": True,
            "sliding_window": 6,
            "use_sliding_window": False,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 200.0, "factor": 2.0},
        },
        dialect=4,
    ),
    "qwen2_window": Golden(
        "qwen2",
        {**LLAMA, "num_hidden_layers": 3, "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
        dtype=torch.bfloat16,
    ),
    "qwen3": Golden("qwen3", {**LLAMA, "head_dim": 12, "tie_word_embeddings": True}, dtype=torch.bfloat16),
    "bloom": Golden("bloom", {**BLOOM, "hidden_size": 16, "n_head": 4}, dialect=4),
    # Six is no power of two: the slopes of ALiBi are then taken from two series.
    "bloom_six": Golden("bloom", {**BLOOM, "hidden_size": 24, "n_head": 6}, dtype=torch.float16),
}


def main() -> None:
    """Write every folder anew."""
    torch.set_num_threads(1)
    tokenizer = learn_tokenizer(SENTENCES * 2, VOCAB)
    for number, (name, golden) in enumerate(GOLDENS.items()):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = make_model(golden, seed=number)
        expected = reference(model, seed=number)
        model.to(golden.dtype).save_pretrained(folder, max_shard_size="24KB" if golden.layout == "sharded" else "1GB")
        save_tokenizer(folder, tokenizer, CONTEXT)
        if golden.layout in ("bare", "bin"):
            rewrite_weights(folder, golden.layout)
        if golden.dialect == 4:
            rewrite_config(folder / "config.json", golden.config)
        np.savez(folder / "golden.npz", **expected)
        for path in folder.iterdir():
            path.chmod(0o644)


def make_model(golden: Golden, seed: int) -> PreTrainedModel:
    """A model whose every parameter is random: with fresh biases and norms, a loader that drops them would pass."""
    config = AutoConfig.for_model(golden.model_type, **golden.config)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        values = 0.4 * torch.randn(parameter.shape, generator=generator) + (1.0 if is_scale else 0.0)
        # Rounded as it will be stored; the model itself stays in float32, for its rotations would be rounded with it.
        parameter.data = values.to(golden.dtype).float()
    return model.eval()


@torch.no_grad()
def reference(model: PreTrainedModel, seed: int) -> dict[str, np.ndarray]:
    """Ids [n] and logits [n, vocab]; a left-padded batch's ids and positions [rows, m], -1 for padding, and logits of all that is none."""
    random = np.random.default_rng(seed)
    ids = random.integers(VOCAB, size=LENGTH)
    rows, longest = len(PROMPTS), max(PROMPTS)
    batch, positions = random.integers(VOCAB, size=(rows, longest)), np.full((rows, longest), -1)
    for row, length in enumerate(PROMPTS):
        positions[row, longest - length :] = np.arange(length)
    return {
        "ids": ids,
        "logits": model(torch.from_numpy(ids)[None]).logits[0].numpy(),
        "batch_ids": batch,
        "batch_positions": positions,
        "batch_logits": batch_logits(model, batch, positions)[positions >= 0],
    }


@torch.no_grad()
def batch_logits(model: PreTrainedModel, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """What transformers gives for a padded batch; BLOOM derives its positions from the mask."""
    where = torch.from_numpy(positions)
    extra = {} if model.config.model_type == "bloom" else {"position_ids": where.clamp(min=0)}
    logits: np.ndarray = model(torch.from_numpy(ids), attention_mask=(where >= 0).long(), **extra).logits.numpy()
    return logits


def rewrite_weights(folder: Path, layout: str) -> None:
    """The same tensors as older folders hold them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    masks = {f"h.{i}.attn.bias": torch.ones(CONTEXT, CONTEXT, dtype=torch.uint8).tril()[None, None] for i in range(2)}
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file({**bare, **masks}, folder / "model.safetensors")


def rewrite_config(path: Path, asked: dict[str, Any]) -> None:
    """Turn what transformers 5 writes into the dialect of transformers 4; what it drops because it is switched off stays."""
    config = {**json.loads(path.read_text("utf-8")), **asked}
    rope = config.pop("rope_parameters", {})
    kind = rope.pop("rope_type", "default")
    if "rope_theta" in rope:
        config["rope_theta"] = rope.pop("rope_theta")
    if kind != "default":
        config["rope_scaling"] = {"rope_type": kind, **rope}
    config.pop("layer_types", None)
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
