"""ModernBERT: an encoder with rotary positions, norms before each part, a gated feed-forward, and windows both ways in most layers."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.table import Names, Part, Rows, Source, Table, make_table
from tgen.spec.positions import RopeSpec
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec, TransformSpec
from tgen.spec.shapes import parameters

HARMLESS = """
    classifier_pooling cls_token_id deterministic_flash_attn embedding_dropout initializer_cutoff_factor mlp_dropout reference_compile
    repad_logits_with_grad sparse_pred_ignore_index sparse_prediction
""".split()


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is modernbert."""
    for key in HARMLESS:
        config.raw(key)
    config.require("position_embedding_type", ["absolute", "sans_pos"])  # both mean rotations
    config.raw("layer_norm_eps")  # repeats norm_eps
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    norm = NormSpec("layer", config.number("norm_eps", default=1e-5), bias=config.flag("norm_bias", default=False))
    bias, head_dim = config.flag("attention_bias", default=False), config.head_dim(width, heads)
    inner, activation = config.integer("intermediate_size"), config.activation("hidden_activation", default="gelu")
    mlp = MlpSpec(inner, activation, gated=True, bias=config.flag("mlp_bias", default=False))
    every, count = config.integer("global_attn_every_n_layers", default=3), config.layers("num_hidden_layers")
    # Half of local_attention lies before a query and half behind it.
    half = config.integer("local_attention", default=128, minimum=2) // 2 + 1
    windows = config.windows(count, lambda layer: bool(layer % every), half)
    full, local = _ropes(config, head_dim)

    def layer(number: int, window: int | None) -> LayerSpec:
        rope = full if window is None else local
        attention = AttentionSpec(heads, heads, head_dim, head_dim**-0.5, bias=bias, out_bias=bias, window=window, rope=rope)
        return LayerSpec(attention, mlp, norm, mixer_normed=number > 0)

    transform = TransformSpec(
        config.activation("classifier_activation", default="gelu"), norm, bias=config.flag("classifier_bias", default=False)
    )
    return ModelSpec(
        family="modernbert",
        vocab=config.integer("vocab_size"),
        width=width,
        context=config.integer("max_position_embeddings", default=8192),
        head=HeadSpec(
            tied=config.flag("tie_word_embeddings", default=True),
            bias=config.flag("decoder_bias", default=True),
            transform=transform,
        ),
        encoder=StackSpec(
            layers=tuple(layer(number, window) for number, window in enumerate(windows)),
            causal=False,
            final_norm=norm,
            embedding_norm=norm,
        ),
    )


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found."""
    inner = parameters(spec)["encoder.layers.0.feed_forward.up.weight"][0]
    layer: Names = {
        **{f"mixer.{part}": Source("attn.Wqkv", (Part(number, 3),)) for number, part in enumerate("qkv")},
        "mixer.out": "attn.Wo",
        "mixer_norm": "attn_norm",
        "feed_forward.gate": Source("mlp.Wi", (Rows(0, inner),)),
        "feed_forward.up": Source("mlp.Wi", (Rows(inner, 2 * inner),)),
        "feed_forward.down": "mlp.Wo",
        "feed_forward_norm": "mlp_norm",
    }
    modules: Names = {
        "embedding": "model.embeddings.tok_embeddings",
        "encoder.embedding_norm": "model.embeddings.norm",
        "encoder.final_norm": "model.final_norm",
        "head.transform.dense": "head.dense",
        "head.transform.norm": "head.norm",
        "head.out": "decoder",
    }
    return make_table(spec, modules, {"encoder": ("model.layers", layer)}, prefixes=("model.",))


def _ropes(config: Config, head_dim: int) -> tuple[RopeSpec, RopeSpec]:
    """Rotations of full layers and of windowed ones."""
    if "full_attention" in config.mapping("rope_parameters"):
        full = config.rope(head_dim, default_theta=160000.0, kind="full_attention")
        return full, config.rope(head_dim, kind="sliding_attention")
    thetas = (config.number("global_rope_theta", default=160000.0), config.number("local_rope_theta", default=10000.0))
    return RopeSpec(head_dim, thetas[0]), RopeSpec(head_dim, thetas[1])
