"""Llama (1 to 3.x), Mistral, Qwen2, Qwen3: root-mean-square norms before each part, rotary positions, a gated feed-forward part.

The four differ in biases, in a norm on queries and keys, and in which layers have a sliding window.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Names, Table, make_table
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is llama, mistral, qwen2 or qwen3."""
    kind = config.model_type
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.kv_heads(heads)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6))
    config.require("rope_interleaved", [False])
    config.require("use_mrope", [False])
    if kind != "llama":
        config.require("mlp_bias", [False])
    if kind == "mistral":
        config.require("attention_bias", [False])
    elif kind == "qwen2":
        config.raw("attention_bias")  # it has biases whatever this says
    bias = kind == "qwen2" or (kind in ("llama", "qwen3") and config.flag("attention_bias", default=False))
    mlp = MlpSpec(
        width=config.integer("intermediate_size"),
        activation=config.activation("hidden_act", default="silu"),
        gated=True,
        bias=kind == "llama" and config.flag("mlp_bias", default=False),
    )
    rope = config.rope(head_dim)
    layers = tuple(
        LayerSpec(
            mixer=AttentionSpec(
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                scale=head_dim**-0.5,
                bias=bias,
                out_bias=bias and kind != "qwen2",
                qk_norm=norm if kind == "qwen3" else None,
                window=window,
                rope=rope,
            ),
            feed_forward=mlp,
            norm=norm,
        )
        for window in _windows(config)
    )
    return ModelSpec(
        family="llama",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("max_position_embeddings", default=2048),
        head=HeadSpec(tied=config.flag("tie_word_embeddings", default=False)),
        decoder=StackSpec(layers=layers, causal=True, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    layer: Names = {
        "mixer_norm": "input_layernorm",
        "mixer.q": "self_attn.q_proj",
        "mixer.k": "self_attn.k_proj",
        "mixer.v": "self_attn.v_proj",
        "mixer.out": "self_attn.o_proj",
        "mixer.q_norm": "self_attn.q_norm",
        "mixer.k_norm": "self_attn.k_norm",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    modules: Names = {"embedding": "model.embed_tokens", "decoder.final_norm": "model.norm", "head.out": "lm_head"}
    return make_table(spec, modules, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=("rotary_emb.inv_freq",))


def _windows(config: Config) -> list[int | None]:
    """For each layer, how many of the latest keys a query sees; None is all of them."""
    count, kind = config.layers("num_hidden_layers"), config.model_type
    if kind in ("qwen2", "qwen3"):
        config.raw("max_window_layers")  # has no effect without use_sliding_window
    if kind == "mistral":
        return config.windows(count)
    if kind in ("qwen2", "qwen3") and config.flag("use_sliding_window", default=False):
        first = config.integer("max_window_layers", default=28, minimum=0)
        return config.windows(count, lambda layer: layer >= first)
    config.require("layer_types", [["full_attention"] * count])
    if kind != "llama":
        config.raw("sliding_window")  # without use_sliding_window it has no effect
    return [None] * count
