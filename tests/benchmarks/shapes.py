"""Random checkpoints of real shapes, as a Hugging Face folder in bfloat16 and as GGUF files with the same numbers.

Writing them needs torch, and the GGUF files the package gguf.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

CONTEXT = 8192
LLAMA_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GPT2_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def llama_like(kind: str, width: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int) -> dict[str, Any]:
    """The config of a model of Llama's architecture, or of Qwen2's."""
    config = {"model_type": kind, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config |= {"num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocab, "max_position_embeddings": CONTEXT}
    config |= {"rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True, "hidden_act": "silu"}
    return config | {"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}


SHAPES: dict[str, dict[str, Any]] = {
    "135M": llama_like("llama", 576, 30, 9, 3, 1536, 50304),
    "494M": llama_like("qwen2", 896, 24, 14, 2, 4864, 151936),
    "GPT-2": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "vocab_size": 50257,
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "torch_dtype": "bfloat16",
    },
}


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Each tensor's name in the folder, its name in GGUF, and its shape in the folder."""
    if config["model_type"] == "gpt2":
        width, vocab = config["n_embd"], config["vocab_size"]
        yield "wte.weight", "token_embd.weight", (vocab, width)
        yield "wpe.weight", "position_embd.weight", (config["n_positions"], width)
        yield from (("ln_f.weight", "output_norm.weight", (width,)), ("ln_f.bias", "output_norm.bias", (width,)))
        inputs = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width), "mlp.c_fc": (width, 4 * width)}
        shapes: dict[str, tuple[int, ...]] = {**inputs, "mlp.c_proj": (4 * width, width), "ln_1": (width,), "ln_2": (width,)}
        for layer in range(config["n_layer"]):
            for name, other in GPT2_NAMES.items():
                yield f"h.{layer}.{name}.weight", f"blk.{layer}.{other}.weight", shapes[name]
                yield f"h.{layer}.{name}.bias", f"blk.{layer}.{other}.bias", shapes[name][-1:]
        return
    width, inner = config["hidden_size"], config["intermediate_size"]
    kv_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", "token_embd.weight", (config["vocab_size"], width)
    yield "model.norm.weight", "output_norm.weight", (width,)
    rows = {"self_attn.k_proj": kv_width, "self_attn.v_proj": kv_width, "mlp.gate_proj": inner, "mlp.up_proj": inner}
    for layer in range(config["num_hidden_layers"]):
        for name, other in LLAMA_NAMES.items():
            shape: tuple[int, ...] = (width,) if "norm" in name else (rows.get(name, width), inner if "down" in name else width)
            yield f"model.layers.{layer}.{name}.weight", f"blk.{layer}.{other}.weight", shape
            if config["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                yield f"model.layers.{layer}.{name}.bias", f"blk.{layer}.{other}.bias", shape[:1]


def write(folder: Path, config: dict[str, Any]) -> None:
    """Write the folder, and beside it the files NAME-bf16.gguf, NAME-int8.gguf and NAME-int4.gguf."""
    weights = write_folder(folder, config)
    for kind in ("bf16", "int8", "int4"):
        _write_gguf(Path(f"{folder}-{kind}.gguf"), config, weights, kind)


def write_folder(folder: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Write the folder alone; returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, _, shape in tensors(config):
        numbers = torch.randn(shape, generator=generator) * 0.02
        weights[name] = (numbers + 1 if "norm" in name or ("ln_" in name and name.endswith("weight")) else numbers).bfloat16()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def _write_gguf(path: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], kind: str) -> None:
    """At int4 the embedding, which is the head too, has 8 bits, as tgen's has."""
    import gguf

    types = {"bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0, "int4": gguf.GGMLQuantizationType.Q4_0}
    writer = gguf.GGUFWriter(path, config["model_type"])
    gpt2 = config["model_type"] == "gpt2"
    width, heads = (config["n_embd"], config["n_head"]) if gpt2 else (config["hidden_size"], config["num_attention_heads"])
    writer.add_context_length(config.get("n_positions", CONTEXT))
    writer.add_embedding_length(width)
    writer.add_block_count(config["n_layer"] if gpt2 else config["num_hidden_layers"])
    writer.add_feed_forward_length(4 * width if gpt2 else config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    if gpt2:
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_rope_dimension_count(width // heads)
    for name, other, shape in tensors(config):
        numbers = weights[name].float().numpy()
        if len(shape) == 1 or name == "wpe.weight":
            writer.add_tensor(other, numbers)
            continue
        numbers = np.ascontiguousarray(numbers.T) if gpt2 and name.startswith("h.") else numbers
        number_type = types["int8" if kind == "int4" and other == "token_embd.weight" else kind]
        writer.add_tensor(other, gguf.quants.quantize(numbers, number_type), raw_dtype=number_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
