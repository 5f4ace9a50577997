"""GPT-2: learned positions, layer norms, biases everywhere, fused query-key-value matrices stored transposed."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import TRANSPOSED, Names, Part, Source, Table, Transpose, make_table
from tgen.spec.positions import PositionTable
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt2."""
    config.require("add_cross_attention", [False])
    width, heads = config.integer("n_embd", "hidden_size"), config.integer("n_head", "num_attention_heads")
    head_dim, context = config.head_dim(width, heads), config.integer("n_positions", "max_position_embeddings", default=1024)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    scale = head_dim**-0.5 if config.flag("scale_attn_weights", default=True) else 1.0
    inverse = config.flag("scale_attn_by_inverse_layer_idx", default=False)
    mlp = MlpSpec(
        width=config.integer("n_inner", default=4 * width),
        activation=config.activation("activation_function", default="gelu_new"),
        gated=False,
        bias=True,
    )
    layers = tuple(
        LayerSpec(AttentionSpec(heads, heads, head_dim, scale / (number + 1 if inverse else 1), bias=True, out_bias=True), mlp, norm)
        for number in range(config.layers("n_layer", "num_hidden_layers"))
    )
    return ModelSpec(
        family="gpt2",
        vocab=config.integer("vocab_size"),
        width=width,
        context=context,
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(
            layers=layers,
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
