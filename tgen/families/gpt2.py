"""GPT-2: learned positions, layer norms, biases everywhere, fused query-key-value matrices stored transposed."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import TRANSPOSED, Names, Part, Source, Table, Transpose, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, PositionTable, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt2."""
    config.require("scale_attn_weights", [True])
    config.require("scale_attn_by_inverse_layer_idx", [False])
    config.require("add_cross_attention", [False])
    width, heads = config.integer("n_embd", "hidden_size"), config.integer("n_head", "num_attention_heads")
    head_dim, context = config.head_dim(width, heads), config.integer("n_positions", "max_position_embeddings", default=1024)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    layer = LayerSpec(
        mixer=AttentionSpec(heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, bias=True, out_bias=True),
        feed_forward=MlpSpec(
            width=config.integer("n_inner", default=4 * width),
            activation=config.activation("activation_function", default="gelu_new"),
            gated=False,
            bias=True,
        ),
        norm=norm,
    )
    return ModelSpec(
        family="gpt2",
        vocab=config.integer("vocab_size"),
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(
            layers=(layer,) * config.layers("n_layer", "num_hidden_layers"),
            causal=True,
            final_norm=norm,
            positions=PositionTable("learned", context),
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "ln_1",
        "mixer.q": Source("attn.c_attn", (Transpose(), Part(0, 3))),
        "mixer.k": Source("attn.c_attn", (Transpose(), Part(1, 3))),
        "mixer.v": Source("attn.c_attn", (Transpose(), Part(2, 3))),
        "mixer.out": Source("attn.c_proj", TRANSPOSED),
        "feed_forward_norm": "ln_2",
        "feed_forward.up": Source("mlp.c_fc", TRANSPOSED),
        "feed_forward.down": Source("mlp.c_proj", TRANSPOSED),
    }
    modules: Names = {
        "embedding": "transformer.wte",
        "decoder.positions": "transformer.wpe",
        "decoder.final_norm": "transformer.ln_f",
        "head.out": "lm_head",
    }
    ignored = (".attn.bias", ".attn.masked_bias")
    return make_table(spec, modules, {"decoder": ("transformer.h", layer)}, prefixes=("transformer.",), ignored=ignored)
