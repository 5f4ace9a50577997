"""Writes model folders as GGUF files, with the gguf package and its names of tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.mapped import MappedFiles, read_parameter, widened
from tgen.checkpoint.safetensors import stored_tensors

Array = npt.NDArray[Any]
Write = Callable[[gguf.GGUFWriter], object]

ARCHITECTURES = {
    "gemma3_text": "gemma3",
    "mixtral": "llama",
    "mistral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "umt5": "t5",
    "gpt_oss": "gpt-oss",
    "olmo3": "olmo2",
}
# Keys of config.json, and those of the metadata behind the architecture's name.
NUMBERS = {
    **dict.fromkeys(("max_position_embeddings", "n_positions"), "context_length"),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), "embedding_length"),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), "block_count"),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff"), "feed_forward_length"),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads"), "attention.head_count"),
    **dict.fromkeys(("head_dim", "d_kv"), "attention.key_length"),
    **dict.fromkeys(("num_experts", "num_local_experts"), "expert_count"),
    **dict.fromkeys(("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"), "attention.layer_norm_epsilon"),
    "num_key_value_heads": "attention.head_count_kv",
    "num_decoder_layers": "decoder_block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "relative_attention_num_buckets": "attention.relative_buckets_count",
    "decoder_start_token_id": "decoder_start_token_id",
}


def write_gguf(folder: Path, path: Path, kind: str = "F32", extra: Write | None = None) -> None:
    """A folder's model in a GGUF file whose matrices have a type; `extra` may add metadata."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    name = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, name)
    _write_config(writer, name, config)
    _write_tokenizer(writer, folder)
    if extra is not None:
        extra(writer)
    for tensor, array in _tensors(folder, config, name):
        narrow = array.ndim > 1 and not tensor.endswith(("attn_rel_b.weight", "ffn_gate_inp.weight", ".bias"))
        wanted = gguf.GGMLQuantizationType[kind if narrow else "F32"]
        writer.add_tensor(tensor, gguf.quantize(np.ascontiguousarray(array), wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_config(writer: gguf.GGUFWriter, name: str, config: dict[str, Any]) -> None:
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    for key, theirs in NUMBERS.items():
        if isinstance(value := config.get(key), int | float):
            add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
            add(f"{name}.{theirs}", value)  # type: ignore[arg-type]
    if name == "gpt2" and not config.get("n_inner"):
        writer.add_feed_forward_length(4 * config["n_embd"])
    if name == "t5":
        writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    full = rope.get("full_attention", rope)
    theta = full.get("rope_theta", config.get("rope_theta"))
    if theta is not None:
        writer.add_rope_freq_base(float(theta))
    if full.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    if full.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(full["factor"])
        writer.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(full["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(full["beta_slow"])
        if "attention_factor" in full:
            writer.add_rope_scaling_yarn_attn_factor(full["attention_factor"])
    if name == "olmo2" and "layer_types" in config:
        writer.add_sliding_window_pattern([one == "sliding_attention" for one in config["layer_types"]])
    share = full.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share is not None:
        writer.add_rope_dimension_count(int(share * config["hidden_size"] // config["num_attention_heads"]))
    local = rope.get("sliding_attention", {}).get("rope_theta", config.get("rope_local_base_freq"))
    if local is not None:
        writer.add_float32(f"{name}.rope.freq_base_swa", float(local))


def _write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """The byte-level tokenizer of a golden folder."""
    values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    added = {token["id"]: token["special"] for token in values["added_tokens"]}
    vocabulary = {number: token for token, number in values["model"]["vocab"].items()} | {
        t["id"]: t["content"] for t in values["added_tokens"]
    }
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in values["model"]["merges"]]
    count = max(max(vocabulary) + 1, json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([vocabulary.get(number, f"[PAD{number}]") for number in range(count)])
    writer.add_token_types([5 if n not in vocabulary else 1 if n not in added else 3 if added[n] else 4 for n in range(count)])
    if not merges:  # llama.cpp wants some
        merges = [f"{vocabulary[0]} {vocabulary[1]}"]
    writer.add_token_merges(merges)
    for token in ("bos", "eos"):
        number = json.loads((folder / "config.json").read_text("utf-8")).get(f"{token}_token_id")
        if isinstance(number, int):
            writer.add_uint32(f"tokenizer.ggml.{token}_token_id", number)


def _tensors(folder: Path, config: dict[str, Any], name: str) -> list[tuple[str, Array]]:
    files, layers = MappedFiles(), max(config.get(key) or 0 for key in ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"))
    names = gguf.get_tensor_name_map(next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == name), layers)
    found: dict[str, Array] = {}
    stacks: dict[str, list[Array]] = {}
    for theirs, stored in stored_tensors(folder).items():
        ours = _renamed(theirs, config)
        if ours is None or (name == "gpt-oss" and ".experts." in ours):
            continue
        array = widened(files.array(stored), stored.dtype)
        head, expert, number, part = ours.partition(".experts.")[0], *_expert(ours)
        if expert:
            whole = f"{head}.experts.{part}"
            stacks.setdefault(whole, []).append(array) if int(number) == len(stacks.get(whole, [])) else None
            continue
        mapped = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        assert mapped is not None, ours
        found[mapped] = _changed(ours, array, config, name)
    if name == "gpt-oss":
        found |= _experts(open_checkpoint(folder))
    for whole, arrays in stacks.items():
        mapped = names.get_name(whole, try_suffixes=(".weight",))
        assert mapped is not None, whole
        found[mapped] = np.stack(arrays)
    return list(found.items())


def _experts(checkpoint: Checkpoint) -> dict[str, Array]:
    """GPT-OSS's experts, which a folder stores packed, or gate and up in one."""
    parts: dict[str, list[Array]] = {}
    for name, match in checkpoint.matches.parameters.items():
        before, found, after = name.partition(".feed_forward.experts.")
        if found:
            _, part, kind = after.split(".")
            array = widened(*read_parameter(name, match, MappedFiles()))
            parts.setdefault(f"blk.{before.rpartition('.')[2]}.ffn_{part}_exps.{kind}", []).append(array)
    return {name: np.stack(arrays) for name, arrays in parts.items()}


def _expert(name: str) -> tuple[bool, str, str]:
    _, found, after = name.partition(".experts.")
    number, _, part = after.partition(".")
    return bool(found) and number.isdigit(), number, part


def _renamed(name: str, config: dict[str, Any]) -> str | None:
    """The name that the package knows; None for a tensor that llama.cpp leaves out."""
    if config["model_type"] == "bert":
        name = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        return None if name.startswith(("cls.", "pooler.")) or name.endswith("position_ids") else name
    if name.endswith(".sinks"):
        return f"{name}.weight"
    if name.endswith((".attn.bias", ".masked_bias", "inv_freq")):
        return None
    if name in ("decoder.embed_tokens.weight", "encoder.embed_tokens.weight"):
        return None
    if config["model_type"] == "mixtral":
        name = (
            name.replace("model.layers", "layers").replace("block_sparse_moe.experts", "feed_forward.experts")
            if "experts" in name
            else name
        )
    return name


def _changed(name: str, array: Array, config: dict[str, Any], architecture: str) -> Array:
    """A tensor as the converter of llama.cpp stores it."""
    if architecture == "gpt2" and (".attn.c_" in name or ".mlp.c_" in name):
        return array.T
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return array + 1
    if architecture in ("llama", "granite", "smollm3") and (".q_proj." in name or ".k_proj." in name):
        heads = config["num_attention_heads"] if ".q_proj." in name else config.get("num_key_value_heads") or config["num_attention_heads"]
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)
    return array
