"""MPT: ALiBi instead of position vectors, layer norms without a bias, no biases at all."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Names, Part, Source, Table, make_table
from tgen.spec.positions import Alibi
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is mpt."""
    for key in ("init_config", "init_device", "learned_pos_emb", "emb_pdrop", "tokenizer_name", "verbose", "no_bias"):
        config.raw(key)  # training alone, or without effect beside ALiBi; biases are never used
    config.require("logit_scale", [])
    config.require("embedding_fraction", [1.0])
    config.require("expansion_ratio", [4])
    config.require("norm_type", ["low_precision_layernorm", "layernorm"])
    attention = config.part("attn_config", config.mapping("attn_config"))
    attention.require("attn_type", ["multihead_attention"])
    attention.require("alibi", [True])
    attention.require("alibi_bias_max", [8])
    for key in ("prefix_lm", "qk_ln", "attn_uses_sequence_id"):
        attention.require(key, [False])
    attention.raw("attn_impl")
    width, heads = config.integer("d_model", "hidden_size"), config.integer("n_heads", "num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", default=1e-5), bias=False)
    layer = LayerSpec(
        AttentionSpec(
            heads,
            heads,
            head_dim,
            scale=attention.number("softmax_scale", default=head_dim**-0.5),
            clip=None if attention.raw("clip_qkv") in (None, 0) else attention.number("clip_qkv", maximum=1e30),
        ),
        MlpSpec(4 * width, "gelu", gated=False, bias=False),
        norm,
    )
    return ModelSpec(
        family="mpt",
        vocab=config.integer("vocab_size"),
        width=width,
        # ALiBi sets no limit; this is the length the models were trained at.
        context=config.integer("max_seq_len", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=True)),
        decoder=StackSpec(
            layers=(layer,) * config.layers("n_layers", "num_hidden_layers"),
            causal=True,
            final_norm=norm,
            bias=Alibi(heads),
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "norm_1",
        "mixer.q": Source("attn.Wqkv", (Part(0, 3),)),
        "mixer.k": Source("attn.Wqkv", (Part(1, 3),)),
        "mixer.v": Source("attn.Wqkv", (Part(2, 3),)),
        "mixer.out": "attn.out_proj",
        "feed_forward_norm": "norm_2",
        "feed_forward.up": "ffn.up_proj",
        "feed_forward.down": "ffn.down_proj",
    }
    modules: Names = {"embedding": "transformer.wte", "decoder.final_norm": "transformer.norm_f", "head.out": "lm_head"}
    return make_table(spec, modules, {"decoder": ("transformer.blocks", layer)}, prefixes=("transformer.",))
