"""Phi (1, 1.5, 2): attention and feed-forward read the same normed input, part of each head is rotated, the head has a bias."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import BUFFERS
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is phi."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm = NormSpec("layer", config.number("layer_norm_eps", default=1e-5))
    layer = LayerSpec(
        mixer=AttentionSpec(
            heads=heads,
            kv_heads=config.kv_heads(heads),
            head_dim=head_dim,
            scale=head_dim**-0.5,
            bias=True,
            out_bias=True,
            qk_norm=norm if config.flag("qk_layernorm", default=False) else None,
            rope=config.rope(head_dim, partial=0.5),
        ),
        feed_forward=MlpSpec(
            config.integer("intermediate_size"), config.activation("hidden_act", default="gelu_new"), gated=False, bias=True
        ),
        norm=norm,
        residual="parallel",
        shared_norm=True,
    )
    return ModelSpec(
        family="phi",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("max_position_embeddings", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=False), bias=True),
        decoder=StackSpec(layers=(layer,) * config.layers("num_hidden_layers"), causal=True, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "input_layernorm",
        "mixer.q": "self_attn.q_proj",
        "mixer.k": "self_attn.k_proj",
        "mixer.v": "self_attn.v_proj",
        "mixer.out": "self_attn.dense",
        "mixer.q_norm": "self_attn.q_layernorm",
        "mixer.k_norm": "self_attn.k_layernorm",
        "feed_forward.up": "mlp.fc1",
        "feed_forward.down": "mlp.fc2",
    }
    modules: Names = {"embedding": "model.embed_tokens", "decoder.final_norm": "model.final_layernorm", "head.out": "lm_head"}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
