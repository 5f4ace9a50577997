"""GPT-J and CodeGen: attention and feed-forward read the same norm, the first part of each head is rotated, in pairs of neighbours.

CodeGen fuses query, value and key in four blocks.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Interleaved, Names, Source, Table, make_table, paired
from tgen.spec.positions import RopeSpec
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gptj or codegen."""
    config.require("rotary", [True])
    config.require("scale_attn_weights", [True])
    width, heads = config.integer("n_embd", "hidden_size"), config.integer("n_head", "num_attention_heads")
    head_dim = config.head_dim(width, heads)
    dim = head_dim if "rotary_dim" in config.values and config.raw("rotary_dim") is None else config.integer("rotary_dim", default=64)
    config.require("rotary_dim", [dim] if dim % 2 == 0 and dim <= head_dim else [None])
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5))
    layer = LayerSpec(
        AttentionSpec(heads, heads, head_dim, head_dim**-0.5, rope=RopeSpec(dim, 10000.0)),
        MlpSpec(
            width=config.integer("n_inner", default=4 * width),
            activation=config.activation("activation_function", default="gelu_new"),
            gated=False,
            bias=True,
        ),
        norm,
        residual="parallel",
        shared_norm=True,
    )
    return ModelSpec(
        family=config.model_type,
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("n_positions", "max_position_embeddings", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=False), bias=True),
        decoder=StackSpec(layers=(layer,) * config.layers("n_layer", "num_hidden_layers"), causal=True, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    attention = spec.stacks["decoder"].layers[0].attention
    take = paired(attention.rope.dim if attention.rope else 0, attention.head_dim)
    layer: Names = {
        "mixer_norm": "ln_1",
        "mixer.q": Source("attn.q_proj", take),
        "mixer.k": Source("attn.k_proj", take),
        "mixer.v": "attn.v_proj",
        "mixer.out": "attn.out_proj",
        "feed_forward.up": "mlp.fc_in",
        "feed_forward.down": "mlp.fc_out",
    }
    if spec.family == "codegen":
        parts = {"q": 0, "v": 1, "k": 2}
        fused = {f"mixer.{part}": Interleaved(index, 3, heads=4) for part, index in parts.items()}
        layer |= {name: Source("attn.qkv_proj", (step, *(() if name == "mixer.v" else take))) for name, step in fused.items()}
    modules: Names = {"embedding": "transformer.wte", "decoder.final_norm": "transformer.ln_f", "head.out": "lm_head"}
    ignored = (".attn.bias", ".attn.masked_bias", ".attn.causal_mask")
    return make_table(spec, modules, {"decoder": ("transformer.h", layer)}, prefixes=("transformer.",), ignored=ignored)
