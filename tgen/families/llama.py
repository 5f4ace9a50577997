"""Llama (1 to 3.x), Mistral, Qwen2, Qwen3: root-mean-square norms before, rotary positions, a gated feed-forward part.

Knows config.json and tensor names only. The four differ in biases, in a norm on queries and keys, and in which layers see a window.
"""

from __future__ import annotations

from tgen.errors import CheckpointError
from tgen.families.config import HINT, Config
from tgen.families.table import Source, Table
from tgen.spec import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is llama, mistral, qwen2 or qwen3."""
    kind = config.model_type
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, kv_heads = config.head_dim(width, heads), config.integer("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise CheckpointError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly", HINT)
    norm = NormSpec("rms", config.number("rms_norm_eps", default=1e-6))
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
            attention=AttentionSpec(
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
            mlp=mlp,
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
        decoder=StackSpec(layers=layers, final_norm=norm),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    names = {"embedding.weight": "embed_tokens.weight", "decoder.final_norm.weight": "norm.weight"}
    for i, layer in enumerate(spec.decoder.layers):
        ours, theirs = f"decoder.layers.{i}", f"layers.{i}"
        names[f"{ours}.attention_norm.weight"] = f"{theirs}.input_layernorm.weight"
        names[f"{ours}.mlp_norm.weight"] = f"{theirs}.post_attention_layernorm.weight"
        attention, mlp = layer.attention, layer.mlp
        for name, biased in (("q", attention.bias), ("k", attention.bias), ("v", attention.bias), ("out", attention.out_bias)):
            for kind in ("weight", "bias") if biased else ("weight",):
                projection = "o" if name == "out" else name
                names[f"{ours}.attention.{name}.{kind}"] = f"{theirs}.self_attn.{projection}_proj.{kind}"
        if attention.qk_norm:
            for name in ("q_norm", "k_norm"):
                names[f"{ours}.attention.{name}.weight"] = f"{theirs}.self_attn.{name}.weight"
        for name in ("gate", "up", "down"):
            for kind in ("weight", "bias") if mlp.bias else ("weight",):
                names[f"{ours}.mlp.{name}.{kind}"] = f"{theirs}.mlp.{name}_proj.{kind}"
    sources = {ours: Source(f"model.{theirs}") for ours, theirs in names.items()}
    if not spec.head.tied:
        sources["head.weight"] = Source("lm_head.weight")
    return Table(sources, prefixes=("model.",), ignored=("rotary_emb.inv_freq",))


def _windows(config: Config) -> list[int | None]:
    """Per layer, how many of the latest keys it sees; None is all."""
    count, kind = config.layers("num_hidden_layers"), config.model_type
    if kind == "llama":
        return [None] * count
    asked = kind == "mistral" or config.flag("use_sliding_window", default=False)
    windowed = config.raw("sliding_window") is not None and asked
    window = config.integer("sliding_window") if windowed else None
    if kind == "mistral":
        return [window] * count
    first = config.integer("max_window_layers", default=28, minimum=0)
    names = ["sliding_attention" if windowed and i >= first else "full_attention" for i in range(count)]
    kinds = config.raw("layer_types") or names
    known = ("full_attention", "sliding_attention") if windowed else ("full_attention",)
    if not isinstance(kinds, list) or len(kinds) != count or not all(kind in known for kind in kinds):
        raise CheckpointError(f"config.json: layer_types does not name {' or '.join(known)} for each of {count} layers", HINT)
    return [window if kind == "sliding_attention" else None for kind in kinds]
