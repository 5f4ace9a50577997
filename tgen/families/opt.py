"""OPT: learned positions whose first two rows are unused, layer norms, ReLU."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec

UNUSED_ROWS = 2


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is opt."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, context = config.head_dim(width, heads), config.integer("max_position_embeddings", default=2048)
    row = config.integer("word_embed_proj_dim", default=width)
    config.require("layer_norm_elementwise_affine", [True])
    config.require("learned_embeddings", [True])
    config.require("scale_embeddings", [False])
    norm, bias = NormSpec("layer", 1e-5), config.flag("enable_bias", default=True)
    before = config.flag("do_layer_norm_before", default=True)
    removed = config.flag("_remove_final_layer_norm", default=False)
    layer = LayerSpec(
        mixer=AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=bias, out_bias=bias),
        feed_forward=MlpSpec(config.integer("ffn_dim"), config.activation("activation_function", default="relu"), gated=False, bias=bias),
        norm=norm,
        residual="pre" if before else "post",
    )
    return ModelSpec(
        family="opt",
        vocab=config.integer("vocab_size"),
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(
            layers=(layer,) * config.layers("num_hidden_layers"),
            causal=True,
            final_norm=norm if before and not removed else None,
            positions=PositionTable("learned", context + UNUSED_ROWS, UNUSED_ROWS),
        ),
        embedding_width=None if row == width else row,
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "self_attn_layer_norm",
        "mixer.q": "self_attn.q_proj",
        "mixer.k": "self_attn.k_proj",
        "mixer.v": "self_attn.v_proj",
        "mixer.out": "self_attn.out_proj",
        "feed_forward_norm": "final_layer_norm",
        "feed_forward.up": "fc1",
        "feed_forward.down": "fc2",
    }
    modules: Names = {
        "embedding": "model.decoder.embed_tokens",
        "embedding_in": "model.decoder.project_in",
        "embedding_out": "model.decoder.project_out",
        "decoder.positions": "model.decoder.embed_positions",
        "decoder.final_norm": "model.decoder.final_layer_norm",
        "head.out": "lm_head",
    }
    return make_table(spec, modules, {"decoder": ("model.decoder.layers", layer)}, prefixes=("model.",))
