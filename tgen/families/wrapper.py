"""Models that also see or hear: the text model inside, found under other names. Tensors of the other parts are left out.

Gemma 3 and Mistral 3 keep the text model's settings in `text_config`, Qwen2-VL among its own.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

from tgen.errors import UnsupportedError
from tgen.families import gemma, gemma3n, gemma4, llama, qwen_linear
from tgen.families.config import Config
from tgen.families.table import Table
from tgen.spec.records import ModelSpec

INNER: dict[str, ModuleType] = {
    "gemma3_text": gemma,
    "gemma3n_text": gemma3n,
    "gemma4_text": gemma4,
    "gemma4_unified_text": gemma4,
    "mistral": llama,
    "ministral3": llama,
    "qwen2_vl_text": llama,
    "qwen2_5_vl_text": llama,
    "qwen3_vl_text": llama,
    "qwen3_5_text": qwen_linear,
    "qwen3_5_moe_text": qwen_linear,
}
# The text model, and what its settings are where the folder does not say.
TEXT: dict[str, dict[str, Any]] = {
    "gemma3": {
        "model_type": "gemma3_text",
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "gemma3n": {
        "model_type": "gemma3n_text",
        "vocab_size": 262400,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "sliding_window": 512,
    },
    "gemma4": {"model_type": "gemma4_text"},
    "gemma4_unified": {"model_type": "gemma4_unified_text"},
    "mistral3": {"model_type": "mistral"},
    "qwen2_vl": {"model_type": "qwen2_vl_text"},
    "qwen2_5_vl": {"model_type": "qwen2_5_vl_text"},
    "qwen3_vl": {"model_type": "qwen3_vl_text"},
    "qwen3_5": {"model_type": "qwen3_5_text"},
    "qwen3_5_moe": {"model_type": "qwen3_5_moe_text"},
}
IMAGES = """
    audio_config audio_token_id audio_soft_tokens_per_image boa_token_id eoa_token_id eoa_token_index boi_token_id eoi_token_id
    vision_soft_tokens_per_image
    vision_config image_token_id image_token_index boi_token_index eoi_token_index mm_tokens_per_image video_token_id vision_token_id
    vision_start_token_id vision_end_token_id projector_hidden_act vision_feature_layer multimodal_projector_bias spatial_merge_size
""".split()
APART = (
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "vision_embedder.",
    "vision_tower.",
    "vision_model.",
    "visual.",
    "multi_modal_projector.",
)


def spec(config: Config) -> ModelSpec:
    """The spec of the text model in a `config.json` whose model_type is one of `TEXT`."""
    for key in IMAGES:
        config.raw(key)
    given = config.mapping("text_config")
    if given:
        if config.model_type == "gemma3":  # the whole model does not bound its logits, the text model alone does
            given = given | {"final_logit_softcapping": None}
        tied = config.raw("tie_word_embeddings")
        inner = config.part("text_config", {**TEXT[config.model_type], **given, **({} if tied is None else {"tie_word_embeddings": tied})})
    else:
        inner = Config({**config.values, **TEXT[config.model_type]})
    kind = inner.model_type
    if kind not in INNER:
        raise UnsupportedError(f"config.json: text_config.model_type = {kind!r} is not implemented", f"implemented: {', '.join(INNER)}")
    spec: ModelSpec = INNER[kind].spec(inner)
    if not given:
        config.absorb(inner)
    return spec


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    table: Table = INNER[spec.family].tensors(spec)
    renamed = (("model.", "model.language_model."), ("", "language_model."))
    inner = (after + name.removeprefix(before) for before, after in renamed for name in table.apart if name.startswith(before))
    return replace(table, renamed=renamed, apart=(*table.apart, *inner, *APART, *(f"model.{part}" for part in APART)))
