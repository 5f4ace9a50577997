"""Makes the config.json and generation_config.json of a GGUF file from its metadata and the names and shapes of its tensors.

Every key of the architecture is read or refused, as in a config.json.
"""

from __future__ import annotations

import array
import math
import struct
import sys
from pathlib import Path
from typing import Any

from tgen.checkpoint.gguf.architectures import ARCHITECTURES, MIXTRAL, Architecture, Tensors, Values
from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import DOWNLOAD_HINT
from tgen.gguf_header import Header

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
# Keys whose values follow from others, or which a forward pass does not need.
REDUNDANT = ("vocab_size", "attention.value_length", "rope.scaling.finetuned", "tensor_data_layout", "expert_count", "pooling_type")
KV_HEADS = "attention.head_count_kv"
ROPE = ("type", "factor", "original_context_length", "attn_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")
# Tensors with a factor for the frequency of each rotated pair: of Llama 3, and of LongRoPE for long and for short texts.
FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "penalty_repeat": "repetition_penalty"}
END_TOKENS = ("eos", "eot", "eom")
LONGEST_FACTORS = 4096


def architecture_of(header: Header) -> Architecture:
    """The entry of ARCHITECTURES for a file. Raises UnsupportedError for an architecture or a kind of file that is not implemented."""
    kind, name = header.text("general.type") or "model", header.text("general.architecture")
    if kind != "model":
        raise UnsupportedError(f"{header.path} holds no model: its general.type is {kind!r}", "give the GGUF file of the model itself")
    if name == "llama" and header.whole("llama.expert_count"):
        return MIXTRAL
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedError(f"{header.path}: general.architecture = {name!r} is not implemented", f"implemented: {known}")
    return ARCHITECTURES[name]


def config_of(header: Header, tensors: Tensors) -> Values:
    """The config.json of a file, with the tensors of all parts if the model is split. Raises CheckpointError, UnsupportedError."""
    architecture, prefix = architecture_of(header), f"{header.text('general.architecture')}."
    own = {key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)}
    values = {theirs: _decimal(own.pop(key)) for key, theirs in architecture.keys.items() if key in own}
    if isinstance(windows := values.get("sliding_window_pattern"), list):
        del values["sliding_window_pattern"]
        values["layer_types"] = ["sliding_attention" if one else "full_attention" for one in windows]
    for key in ("embedding_length", "block_count", "attention.head_count"):
        if architecture.keys[key] not in values:
            raise CheckpointError(f"{header.path} lacks {prefix}{key}", DOWNLOAD_HINT)
    if EMBEDDING not in tensors:
        raise CheckpointError(f"{header.path} lacks the tensor {EMBEDDING}", DOWNLOAD_HINT)
    _check_whole(header, prefix, architecture, values)
    values |= {"model_type": architecture.model_type, "vocab_size": tensors[EMBEDDING].shape[0]}
    values |= {"tie_word_embeddings": HEAD not in tensors, **_tokens(header)}
    values |= _rotations(header, own, values, tensors)
    for key in (*REDUNDANT, *architecture.redundant):
        own.pop(key, None)
    if own.get(KV_HEADS) == header.metadata[f"{prefix}attention.head_count"]:
        del own[KV_HEADS]
    if own:
        key, value = next(iter(own.items()))
        raise UnsupportedError(f"{header.path}: {prefix}{key} = {str(value)[:60]} is not implemented", "tgen does not know what it means")
    return values | dict(architecture.fixed) | architecture.derived(values, tensors)


def generation_of(header: Header) -> Values:
    """The generation_config.json of a file: the tokens that end a text, and the settings of the sampler."""
    ends = [header.whole(f"tokenizer.ggml.{name}_token_id") for name in END_TOKENS]
    found: Values = {"eos_token_id": list(dict.fromkeys(end for end in ends if end is not None))}
    for theirs, ours in SAMPLING.items():
        if (value := header.metadata.get(f"general.sampling.{theirs}")) is not None:
            found[ours] = _decimal(value)
    return found


def _decimal(value: Any) -> Any:
    """The short decimal number that the config.json held before it was stored in float32: 1e-05, not 9.999999747378752e-06."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    short = float(f"{value:.7g}")
    return short if abs(short) < 3e38 and struct.pack("<f", short) == struct.pack("<f", value) else value


def _check_whole(header: Header, prefix: str, architecture: Architecture, values: Values) -> None:
    """Replace a list with one value for all layers by that value.

    Raises CheckpointError for a value that is no number, UnsupportedError for one that differs between layers.
    """
    for key, theirs in architecture.keys.items():
        value = values.get(theirs)
        if isinstance(value, list) and value and all(one == value[0] for one in value):
            values[theirs] = value[0]
        elif isinstance(value, list):
            raise UnsupportedError(f"{header.path}: {prefix}{key} differs between layers, which is not implemented", "get another model")
        elif value is not None and (isinstance(value, bool | str) or not 0 <= value < 1e12):
            raise CheckpointError(f"{header.path}: {prefix}{key} = {str(value)[:60]!r} is not a sensible number", DOWNLOAD_HINT)


def _tokens(header: Header) -> Values:
    """The ids of special tokens that config.json names."""
    named = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    found = {ours: header.whole(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in named.items()}
    if header.flag("tokenizer.ggml.add_bos_token") is False:
        del found["bos_token_id"]
    return {name: number for name, number in found.items() if number is not None}


def _rotations(header: Header, own: Values, values: Values, tensors: Tensors) -> Values:
    """The share of each head that is rotated, and the scaling of the rotations. Their keys are removed from `own`."""
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    head_dim, dim = values.get("head_dim") or (width // heads if heads and width else None), own.pop("rope.dimension_count", None)
    found: Values = {}
    if own.get("attention.value_length", head_dim) != head_dim:
        raise UnsupportedError(f"{header.path}: values of another length than keys are not implemented", "get another model")
    if dim is not None and head_dim is not None and dim != head_dim:
        found["partial_rotary_factor"] = math.nextafter(dim / head_dim, math.inf)  # times head_dim, it must not round down to dim - 1
    scaling = {key: _decimal(own.pop(f"rope.scaling.{key}", None)) for key in ROPE}
    context = values.get("max_position_embeddings")
    if FREQUENCIES in tensors:
        factors = _floats(header, tensors, FREQUENCIES)
        scaled: Values = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0}
        return found | {"rope_scaling": scaled | {"original_max_position_embeddings": context}}
    original = scaling["original_context_length"]
    if LONG in tensors and SHORT in tensors:
        both = {"short_factor": _floats(header, tensors, SHORT), "long_factor": _floats(header, tensors, LONG)}
        scaled = {"rope_type": "longrope", **both, "original_max_position_embeddings": original}
        return found | {"rope_scaling": scaled | {"attention_factor": scaling["attn_factor"]}}
    match scaling["type"]:
        case None | "none":
            return found
        case "linear":
            return found | {"rope_scaling": {"rope_type": "linear", "factor": scaling["factor"]}}
        case "yarn":
            scaled = {"rope_type": "yarn", "factor": scaling["factor"], "original_max_position_embeddings": original}
            scaled |= _amplitude(scaling["yarn_attn_factor"])
            return found | {"rope_scaling": scaled | {f"beta_{one}": scaling[f"yarn_beta_{one}"] for one in ("fast", "slow")}}
        case kind:
            raise UnsupportedError(f"{header.path}: rope.scaling.type = {kind!r} is not implemented", "implemented: none, linear, yarn")


def _amplitude(factor: Any) -> Values:
    """YaRN's factor of cosines and sines. The converter of llama.cpp writes two keys of config.json into this one, so the value decides.

    `attention_factor` replaces the default amplitude, which is 1 or more; `attn_factor` multiplies the default, and is below 1 to undo it.
    """
    return {} if factor is None else {"attention_factor" if isinstance(factor, float) and factor >= 1 else "attn_factor": factor}


def _floats(header: Header, tensors: Tensors, name: str) -> list[float]:
    """The numbers of a short vector in float32."""
    info = tensors[name]
    count = math.prod(info.shape)
    if info.kind != 0 or not 0 < count <= LONGEST_FACTORS:
        raise CheckpointError(f"{header.path}: {name} is not a short vector in float32", DOWNLOAD_HINT)
    numbers = array.array("f", _bytes(header.path, info.start, 4 * count))
    if len(numbers) != count:
        raise CheckpointError(f"{header.path} is truncated", DOWNLOAD_HINT)
    if sys.byteorder == "big":
        numbers.byteswap()
    return list(numbers)


def _bytes(path: Path, start: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)
