"""Phi-3: a Llama whose query-key-value and gate-up matrices are stored fused."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import BUFFERS, decoder_model, gated_mlp, grouped_attention
from tgen.families.table import Names, Part, Rows, Source, Table, make_table
from tgen.spec.records import LayerSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is phi3."""
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        config.require(key, [False])
    config.require("full_attn_mod", [1])
    config.require("interpolate_factor", [1])
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-5))
    mlp = gated_mlp(config)
    rope = config.rope(head_dim, partial=1.0)
    config.raw("original_max_position_embeddings")  # used only by a rope scaling
    windows = config.windows(config.layers("num_hidden_layers"))
    layers = (LayerSpec(grouped_attention(config, head_dim, window=window, rope=rope), mlp, norm) for window in windows)
    return decoder_model(config, layers, norm, context=config.context(default=4096))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    attention = spec.stacks["decoder"].layers[0].attention
    q, kv = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    layer: Names = {
        "mixer_norm": "input_layernorm",
        "mixer.q": Source("self_attn.qkv_proj", (Rows(0, q),)),
        "mixer.k": Source("self_attn.qkv_proj", (Rows(q, q + kv),)),
        "mixer.v": Source("self_attn.qkv_proj", (Rows(q + kv, q + 2 * kv),)),
        "mixer.out": "self_attn.o_proj",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": Source("mlp.gate_up_proj", (Part(0, 2),)),
        "feed_forward.up": Source("mlp.gate_up_proj", (Part(1, 2),)),
        "feed_forward.down": "mlp.down_proj",
    }
    modules: Names = {"embedding": "model.embed_tokens", "decoder.final_norm": "model.norm", "head.out": "lm_head"}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
