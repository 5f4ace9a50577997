"""GPT-OSS: a mixture of experts in every layer, attention sinks, windows on every second layer, YaRN; experts are stored packed or not."""

from __future__ import annotations

from tgen.families.config import Config
from tgen.families.decoder import ATTENTION, BUFFERS, MODULES, PRE_NORMS, decoder_model, grouped_attention
from tgen.families.experts import counts, first_experts
from tgen.families.table import TRANSPOSED, Interleaved, Member, Names, Source, Table, make_table
from tgen.spec.records import ClampedGate, ExpertsSpec, LayerSpec, MlpSpec, ModelSpec, NormSpec, RouterSpec


def spec(config: Config) -> ModelSpec:
    """The spec of a `config.json` whose model_type is gpt_oss."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.head_dim(width, heads)
    norm, bias = NormSpec("rms", config.number("rms_norm_eps", default=1e-5)), config.flag("attention_bias", default=True)
    experts, chosen = counts(config, "num_local_experts")
    for key in ("experts_per_token", "initial_context_length"):
        config.raw(key)  # repeat other keys
    clamp = ClampedGate(config.number("swiglu_alpha", default=1.702, maximum=1e6), config.number("swiglu_limit", default=7.0, maximum=1e30))
    config.require("hidden_act", ["silu"])
    mlp = MlpSpec(config.integer("intermediate_size"), "silu", gated=True, bias=True, clamp=clamp)
    mixture = ExpertsSpec(RouterSpec(experts, chosen, bias=True, normalised=True), mlp)
    rope = config.rope(head_dim, default_theta=150000.0)
    layers = (
        LayerSpec(
            grouped_attention(config, head_dim, bias=bias, sinks=True, window=window, rope=rope),
            mixture,
            norm,
        )
        for window in config.windows(config.layers("num_hidden_layers"), lambda layer: layer % 2 == 0)
    )
    return decoder_model(config, layers, norm, context=config.context(default=131072))


def tensors(spec: ModelSpec) -> Table:
    """Where each parameter is found: gate and up alternate in one matrix, packed [outputs, inputs] or plain [inputs, outputs]."""
    layer: Names = {**ATTENTION, **PRE_NORMS, "mixer.sinks": "self_attn.sinks", "feed_forward.router": "mlp.router"}
    mixture = first_experts(spec)
    assert mixture is not None
    count, fused = mixture.router.experts, "mlp.experts.gate_up_proj"
    for number in range(count):
        member, name = Member(number, count), f"feed_forward.experts.{number}"
        ways = {
            "gate": (fused, (Interleaved(0, 2, mixture.expert.width),)),
            "up": (fused, (Interleaved(1, 2, mixture.expert.width),)),
            "down": ("mlp.experts.down_proj", ()),
        }
        for part, (stored, rows) in ways.items():
            plain = Source(stored, (member, *TRANSPOSED, *rows))
            layer[f"{name}.{part}.weight"] = Source(f"{stored}_blocks", (member, *rows), plain)
            layer[f"{name}.{part}.bias"] = Source(f"{stored}_bias", (member, *rows))
    return make_table(spec, MODULES, {"decoder": ("model.layers", layer)}, prefixes=("model.",), ignored=BUFFERS)
