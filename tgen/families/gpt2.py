"""GPT-2: learned positions, layer norms, biases everywhere, fused query-key-value matrices stored transposed."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Source, Table, part, transposed
from tgen.spec import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, PositionTable, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt2."""
    config.require("scale_attn_weights", [True])
    config.require("scale_attn_by_inverse_layer_idx", [False])
    config.require("add_cross_attention", [False])
    width, heads = config.integer("n_embd", "hidden_size"), config.integer("n_head", "num_attention_heads")
    head_dim, context = config.head_dim(width, heads), config.integer("n_positions", "max_position_embeddings", default=1024)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    layer = LayerSpec(
        attention=AttentionSpec(heads=heads, kv_heads=heads, head_dim=head_dim, scale=head_dim**-0.5, bias=True, out_bias=True),
        mlp=MlpSpec(
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
            layers=(layer,) * config.layers("n_layer", "num_hidden_layers"), final_norm=norm, positions=PositionTable(context)
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    sources = {
        "embedding.weight": Source("transformer.wte.weight"),
        "decoder.positions.weight": Source("transformer.wpe.weight"),
    }
    for kind in ("weight", "bias"):
        sources[f"decoder.final_norm.{kind}"] = Source(f"transformer.ln_f.{kind}")
    for i in range(len(spec.decoder.layers)):
        ours, theirs = f"decoder.layers.{i}", f"transformer.h.{i}"
        for kind in ("weight", "bias"):
            sources[f"{ours}.attention_norm.{kind}"] = Source(f"{theirs}.ln_1.{kind}")
            sources[f"{ours}.mlp_norm.{kind}"] = Source(f"{theirs}.ln_2.{kind}")
            for index, name in enumerate("qkv"):
                sources[f"{ours}.attention.{name}.{kind}"] = Source(f"{theirs}.attn.c_attn.{kind}", part(index, 3, then=transposed))
            sources[f"{ours}.attention.out.{kind}"] = Source(f"{theirs}.attn.c_proj.{kind}", transposed)
            sources[f"{ours}.mlp.up.{kind}"] = Source(f"{theirs}.mlp.c_fc.{kind}", transposed)
            sources[f"{ours}.mlp.down.{kind}"] = Source(f"{theirs}.mlp.c_proj.{kind}", transposed)
    if not spec.head.tied:
        sources["head.weight"] = Source("lm_head.weight")
    return Table(sources, prefixes=("transformer.",), ignored=(".attn.bias", ".attn.masked_bias"))
