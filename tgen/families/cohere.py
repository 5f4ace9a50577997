"""Command R (cohere) and Command R7B, A (cohere2): attention and feed-forward read the same norm, which has no bias; scaled logits.

Rotated pairs are neighbours in the checkpoint. cohere2 rotates only in the layers that have a sliding window.
"""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, FEED_FORWARD, MODULES, decoder_model, gated_mlp, grouped_attention
from tgen.families.table import Names, Reshape, Source, Table, make_table, paired
from tgen.spec.records import LayerSpec, ModelSpec, NormSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is cohere or cohere2."""
    second = config.model_type == "cohere2"
    for key in ("use_embedding_sharing", "use_gated_activation", "use_parallel_block"):
        config.require(key, [True])
    config.raw("use_parallel_embedding")  # how embeddings are spread over several machines
    config.require("position_embedding_type", ["rope_gptj"])
    config.require("order_of_interleaved_layers", ["local_attn_first"])
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm, bias = NormSpec("layer", config.number("layer_norm_eps", default=1e-5), bias=False), config.flag("attention_bias", default=False)
    every, count = (
        config.integer("sliding_window_pattern", "_sliding_window_pattern", "layer_switch", default=4),
        config.layers("num_hidden_layers"),
    )
    windows = config.windows(count, lambda layer: bool((layer + 1) % every)) if second else [None] * count
    rope, mlp = config.rope(head_dim, default_theta=1e4 if second else 5e5, partial=1.0), gated_mlp(config)
    config.require("use_qk_norm", [False] if second else [False, True])
    normed = not second and config.flag("use_qk_norm", default=False)
    layers = (
        LayerSpec(
            mixer=grouped_attention(
                config,
                head_dim,
                bias=bias,
                qk_norm=norm if normed else None,
                qk_norm_span="own",
                window=window,
                rope=None if second and window is None else rope,
            ),
            feed_forward=mlp,
            norm=norm,
            residual="parallel",
            shared_norm=True,
        )
        for window in windows
    )
    head = {"scale": config.number("logit_scale", default=0.0625)}
    return decoder_model(config, layers, norm, context=config.context(default=8192), tied=True, head=head)


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    head_dim = spec.stacks["decoder"].layers[0].attention.head_dim
    take = paired(head_dim, head_dim)
    layer: Names = {**ATTENTION, **FEED_FORWARD, "mixer_norm": "input_layernorm"}
    for part in ("q", "k"):
        layer[f"mixer.{part}"] = Source(f"self_attn.{part}_proj", take)
        layer[f"mixer.{part}_norm"] = Source(f"self_attn.{part}_norm", (Reshape((-1,), back=(-1, head_dim)), *take))
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
