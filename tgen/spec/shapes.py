"""The name and shape of every parameter of a spec. Knows no tensor framework.

A checkpoint is checked against this list before torch is imported; a test compares the list with the torch modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tgen.spec.positions import RelativeBias
from tgen.spec.records import (
    AttentionSpec,
    ExpertsSpec,
    FeedForward,
    LatentSpec,
    LayerSpec,
    Mixer,
    MlpSpec,
    ModelSpec,
    NormSpec,
    SideBySideSpec,
    StackSpec,
)
from tgen.spec.recurrent import (
    ChannelMixSpec,
    GatedDeltaSpec,
    RecurrentSpec,
    SelectiveSpec,
    Shape,
    ShortConvolutionSpec,
    StateSpaceSpec,
    TimeMixSpec,
    WindowSpec,
)

Named = Iterator[tuple[str, Shape]]


def parameters(spec: ModelSpec) -> dict[str, Shape]:
    """Every parameter's dotted name and shape; matrices are [outputs, inputs]."""
    return dict(_model(spec))


def parameter_count(spec: ModelSpec) -> int:
    """How many numbers the model holds; a tied head counts once."""
    return sum(map(math.prod, parameters(spec).values()))


def active_parameter_count(spec: ModelSpec) -> int:
    """How many of these numbers take part in one token: all but those of the experts that are not chosen."""
    parts = [part for stack in spec.stacks.values() for layer in stack.layers for part in (layer.feed_forward, layer.experts)]
    idle = sum(
        (part.router.experts - part.router.chosen) * sum(math.prod(shape) for _, shape in _mlp("", part.expert, part.inner or spec.width))
        for part in parts
        if isinstance(part, ExpertsSpec)
    )
    return parameter_count(spec) - idle


def _model(spec: ModelSpec) -> Named:
    row = spec.row
    yield "embedding.weight", (spec.vocab, row)
    if spec.embedding_width is not None:
        yield "embedding_in.weight", (spec.width, row)
        yield "embedding_out.weight", (row, spec.width)
    for name, stack in spec.stacks.items():
        yield from _stack(name, stack, spec.width)
    if spec.head is not None:
        if spec.head.transform is not None:
            yield from _linear("head.transform.dense", row, spec.width, spec.head.transform.bias)
            yield from _norm("head.transform.norm", spec.head.transform.norm, row)
        if not spec.head.tied:
            yield "head.out.weight", (spec.vocab, row)
        if spec.head.bias:
            yield "head.out.bias", (spec.vocab,)


def _stack(name: str, stack: StackSpec, width: int) -> Named:
    row = stack.embedding_in or width
    if stack.positions is not None and stack.positions.kind == "learned":
        yield f"{name}.positions.weight", (stack.positions.length, row)
    if stack.types is not None:
        yield f"{name}.types.weight", (stack.types, row)
    if stack.relative is not None:
        yield f"{name}.relative.weight", (2 * stack.relative.span, width)
        if stack.relative.norm is not None:
            yield from _norm(f"{name}.relative.norm", stack.relative.norm, width)
    if stack.block_bias is not None:
        yield f"{name}.block_bias.weight", (stack.block_bias.buckets, stack.block_bias.heads)
    if isinstance(stack.bias, RelativeBias):
        yield f"{name}.bias.weight", (stack.bias.buckets, stack.bias.heads)
    if stack.embedding_norm is not None:
        yield from _norm(f"{name}.embedding_norm", stack.embedding_norm, row)
    if stack.embedding_in is not None:
        yield from _linear(f"{name}.embedding_in", width, row, bias=True)
    if (vector := stack.layers[0].vector) is not None:
        yield f"{name}.vectors.table.weight", (vector.vocab, len(stack.layers) * vector.width)
        yield from _linear(f"{name}.vectors.matrix", len(stack.layers) * vector.width, width, bias=False)
        yield from _norm(f"{name}.vectors.norm", stack.layers[0].norm, vector.width)
    if (streams := stack.layers[0].streams) is not None:
        ends = (f"{name}.streams.{end}.{number}" for end in ("opening", "closing") for number in range(streams.count - 1))
        yield from (pair for end in ends for pair in _linear(end, width, width, bias=False))
    for index, layer in enumerate(stack.layers):
        yield from _layer(f"{name}.layers.{index}", layer, width)
    if stack.final_norm is not None:
        yield from _norm(f"{name}.final_norm", stack.final_norm, width)


def norm_names(layer: LayerSpec) -> list[str]:
    """The names of a layer's norms, in the order they run."""
    if layer.residual == "output":
        return ["mixer_out_norm", "feed_forward_out_norm"]
    names = ["mixer_norm"] if layer.mixer is not None and layer.mixer_normed else []
    if layer.residual == "sandwich":
        names.append("mixer_out_norm")
    if layer.cross is not None:
        names.append("cross_norm")
    if layer.feed_forward is not None and not layer.shared_norm:
        names.append("feed_forward_norm")
    if layer.residual == "sandwich":
        names.append("feed_forward_out_norm")
    if layer.experts is not None:
        names += ["dense_out_norm", "experts_norm", "experts_out_norm"]
    names += ["laurel_norm"] * (layer.laurel is not None) + ["vector_norm"] * (layer.vector is not None)
    return names


def _layer(name: str, layer: LayerSpec, width: int) -> Named:
    for norm in norm_names(layer):
        yield from _norm(f"{name}.{norm}", layer.norm, width)
    if layer.mixer is not None:
        yield from _mixer(f"{name}.mixer", layer.mixer, width)
    if layer.cross is not None:
        yield from _attention(f"{name}.cross", layer.cross, width)
    if layer.feed_forward is not None:
        yield from _feed_forward(f"{name}.feed_forward", layer.feed_forward, width)
    yield from _around(name, layer, width)


def _around(name: str, layer: LayerSpec, width: int) -> Named:
    """What a layer may have beside its parts and norms."""
    if layer.experts is not None:
        yield from _experts(f"{name}.experts", layer.experts, width)
    if layer.laurel is not None:
        yield from _linear(f"{name}.laurel_in", layer.laurel, width, bias=False)
        yield from _linear(f"{name}.laurel_out", width, layer.laurel, bias=False)
    if layer.vector is not None:
        yield from _linear(f"{name}.vector_gate", layer.vector.width, width, bias=False)
        yield from _linear(f"{name}.vector_out", width, layer.vector.width, bias=False)
    if (streams := layer.streams) is not None:
        yield from _norm(f"{name}.streams.norm", layer.norm, width)
        yield from _linear(f"{name}.streams.router", streams.count, width, bias=False)
        yield from _linear(f"{name}.streams.prediction", streams.count**2, streams.count, bias=False)
        yield from _linear(f"{name}.streams.correction", streams.count, streams.count, bias=False)
        if streams.scaled:
            yield f"{name}.streams.scale", (width,)
    if layer.scaled:
        yield f"{name}.scale", (1,)


def _mixer(name: str, mixer: Mixer, width: int) -> Named:
    match mixer:
        case AttentionSpec():
            return _attention(name, mixer, width)
        case SideBySideSpec():
            return (pair for number, one in enumerate(mixer.mixers) for pair in _mixer(f"{name}.mixers.{number}", one, width))
        case _:
            return _recurrent(name, mixer, width)


def _recurrent(name: str, mixer: RecurrentSpec, width: int) -> Named:
    match mixer:
        case ShortConvolutionSpec(window, bias):
            yield from _linear(f"{name}.projection", 3 * width, width, bias)
            yield from _window(name, window, width)
            yield from _linear(f"{name}.result", width, width, bias)
        case SelectiveSpec():
            yield from _linear(f"{name}.projection", 2 * mixer.inner, width, mixer.bias)
            yield from _window(name, mixer.window, mixer.inner)
            yield from _linear(f"{name}.select", mixer.rank + 2 * mixer.state, mixer.inner, bias=False)
            yield from _linear(f"{name}.step", mixer.inner, mixer.rank, bias=True)
            yield from ((f"{name}.decay", (mixer.inner, mixer.state)), (f"{name}.skip", (mixer.inner,)))
            yield from _linear(f"{name}.result", width, mixer.inner, mixer.bias)
        case StateSpaceSpec():
            yield from _linear(f"{name}.projection", mixer.inner + mixer.channels + mixer.heads, width, mixer.bias)
            yield from _window(name, mixer.window, mixer.channels)
            yield from ((f"{name}.{one}", (mixer.heads,)) for one in ("step_bias", "decay", "skip"))
            if mixer.norm_eps is not None:
                yield f"{name}.norm", (mixer.inner,)
            yield from _linear(f"{name}.result", width, mixer.inner, mixer.out_bias)
        case GatedDeltaSpec():
            yield from _linear(f"{name}.projection", 2 * mixer.keys + mixer.values, width, bias=False)
            yield from _linear(f"{name}.gate", mixer.values, width, bias=False)
            yield from (pair for one in "ab" for pair in _linear(f"{name}.{one}", mixer.value_heads, width, bias=False))
            yield from _window(name, mixer.window, 2 * mixer.keys + mixer.values)
            yield from ((f"{name}.{one}", (mixer.value_heads,)) for one in ("step_bias", "decay"))
            yield f"{name}.norm", (mixer.value_dim,)
            yield from _linear(f"{name}.result", width, mixer.values, bias=False)
        case TimeMixSpec():
            yield from ((f"{name}.mix_{one}", (width,)) for one in "rkv")
            yield from (pair for one in "rkv" for pair in _linear(f"{name}.{one}", mixer.inner, width, bias=False))
            yield from ((f"{name}.{one}", (mixer.inner,)) for one in ("decay", "first"))
            yield from _linear(f"{name}.result", width, mixer.inner, bias=False)
        case ChannelMixSpec():
            yield from ((f"{name}.mix_{one}", (width,)) for one in "rk")
            yield from _linear(f"{name}.r", width, width, bias=False)
            yield from _linear(f"{name}.k", mixer.inner, width, bias=False)
            yield from _linear(f"{name}.v", width, mixer.inner, bias=False)


def _window(name: str, window: WindowSpec, channels: int) -> Named:
    yield f"{name}.window.weight", (channels, window.size)
    if window.bias:
        yield f"{name}.window.bias", (channels,)


def _feed_forward(name: str, part: FeedForward, width: int) -> Named:
    match part:
        case MlpSpec():
            return _mlp(name, part, width)
        case ExpertsSpec():
            return _experts(name, part, width)


def _latent(name: str, attention: AttentionSpec, latent: LatentSpec, width: int) -> Named:
    rotated = attention.rope.dim if attention.rope else 0
    if latent.q_rank is not None:
        yield from _linear(f"{name}.q_down", latent.q_rank, width, attention.bias)
        yield from _norm(f"{name}.q_norm", latent.norm, latent.q_rank)
    yield from _linear(f"{name}.q", attention.heads * attention.head_dim, latent.q_rank or width, bias=False)
    yield from _linear(f"{name}.kv_down", latent.kv_rank, width, attention.bias)
    yield from _linear(f"{name}.k_rotated", rotated, width, attention.bias)
    yield from _norm(f"{name}.kv_norm", latent.norm, latent.kv_rank)
    yield from _linear(f"{name}.kv", attention.heads * (attention.head_dim - rotated + latent.value_dim), latent.kv_rank, bias=False)
    yield from _linear(f"{name}.out", width, attention.heads * latent.value_dim, attention.out_bias)


def _attention(name: str, attention: AttentionSpec, width: int) -> Named:
    if attention.latent is not None:
        yield from _latent(name, attention, attention.latent, width)
        return
    inner, kv = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    yield from _linear(f"{name}.q", inner, width, attention.bias)
    if attention.gated:
        yield from _linear(f"{name}.out_gate", inner, width, attention.bias)
    own = attention.shares is None
    if own:
        yield from _linear(f"{name}.k", kv, width, attention.bias)
    if own and not attention.values_are_keys:
        yield from _linear(f"{name}.v", kv, width, attention.bias)
    if attention.qk_norm is not None:
        each = attention.qk_norm_span == "head"
        yield from _norm(f"{name}.q_norm", attention.qk_norm, attention.head_dim if each else inner)
        if own:
            yield from _norm(f"{name}.k_norm", attention.qk_norm, attention.head_dim if each else kv)
    if attention.sinks:
        yield f"{name}.sinks", (attention.heads,)
    yield from _linear(f"{name}.out", width, inner, attention.out_bias)
    if (blocks := attention.aggregates) is not None:
        yield from _norm(f"{name}.block_norm", blocks.norm, width)
    if attention.distances is not None:
        yield f"{name}.distances.weight", (attention.distances.buckets, attention.distances.heads)


def _mlp(name: str, mlp: MlpSpec, width: int) -> Named:
    if mlp.gated:
        yield from _linear(f"{name}.gate", mlp.width, width, mlp.bias)
    yield from _linear(f"{name}.up", mlp.width, width, mlp.bias)
    yield from _linear(f"{name}.down", width, mlp.width, mlp.bias)
    if mlp.activation == "xielu":
        yield from ((f"{name}.{number}", (1,)) for number in ("alpha_p", "alpha_n", "beta"))


def _experts(name: str, part: ExpertsSpec, width: int) -> Named:
    yield from _linear(f"{name}.router", part.router.experts, width, part.router.bias)
    if part.router.norm is not None:
        yield from _norm(f"{name}.router_norm", part.router.norm, width)
    if part.router.expert_scales:
        yield f"{name}.expert_scales", (part.router.experts,)
    if part.router.correction:
        yield f"{name}.correction", (part.router.experts,)
    if part.inner is not None:
        yield from _linear(f"{name}.inner_in", part.inner, width, part.inner_bias)
        yield from _linear(f"{name}.inner_out", width, part.inner, part.inner_bias)
    for number in range(part.router.experts):
        yield from _mlp(f"{name}.experts.{number}", part.expert, part.inner or width)
    if part.shared is not None:
        yield from _mlp(f"{name}.shared", part.shared, width)
    if part.shared_gate:
        yield from _linear(f"{name}.shared_gate", 1, width, bias=False)


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, norm: NormSpec, width: int) -> Named:
    if norm.weight:
        yield f"{name}.weight", (width,)
    if norm.has_bias:
        yield f"{name}.bias", (width,)
