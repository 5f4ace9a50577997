"""GLM-4 9B (glm) and GLM-4-0414 (glm4): part of each head rotated, in pairs of neighbours, and a fused gate-up matrix.

glm4 has norms before and after each part.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, decoder_model, gated_mlp
from tgen.families.table import Names, Part, Source, Table, make_table, paired
from tgen.spec.records import AttentionSpec, LayerSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is glm or glm4."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.kv_heads(heads)
    norm, bias = NormSpec("rms", config.number("rms_norm_eps", default=1.5625e-07)), config.flag("attention_bias", default=True)
    rope = config.rope(head_dim, partial=0.5)
    layer = LayerSpec(
        AttentionSpec(heads, kv_heads, head_dim, head_dim**-0.5, bias=bias, rope=rope),
        gated_mlp(config),
        norm,
        residual="sandwich" if config.model_type == "glm4" else "pre",
    )
    return decoder_model(config, (layer,) * config.layers("num_hidden_layers"), norm, context=config.context(default=131072))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    attention = spec.stacks["decoder"].layers[0].attention
    take = paired(attention.rope.dim if attention.rope else 0, attention.head_dim)
    layer: Names = {
        **ATTENTION,
        "mixer.q": Source("self_attn.q_proj", take),
        "mixer.k": Source("self_attn.k_proj", take),
        "mixer_norm": "input_layernorm",
        "mixer_out_norm": "post_self_attn_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward_out_norm": "post_mlp_layernorm",
        "feed_forward.gate": Source("mlp.gate_up_proj", (Part(0, 2),)),
        "feed_forward.up": Source("mlp.gate_up_proj", (Part(1, 2),)),
        "feed_forward.down": "mlp.down_proj",
    }
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
