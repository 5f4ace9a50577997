"""One block of a stack: a mixer, cross-attention, a feed-forward part or a mixture of experts, and the norms around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.attention import Attention, LatentAttention
from tgen.executors.torch.forward_pass import ForwardPass
from tgen.executors.torch.mixers.aggregates import AggregateAttention
from tgen.executors.torch.mixers.disentangled import DisentangledAttention
from tgen.executors.torch.mixers.gated_delta import GatedDelta
from tgen.executors.torch.mixers.receptance import ChannelMix, TimeMix
from tgen.executors.torch.mixers.recurrent import Recurrent
from tgen.executors.torch.mixers.sharing import SharingAttention
from tgen.executors.torch.mixers.short_convolution import ShortConvolution
from tgen.executors.torch.mixers.state_space import Selective, StateSpace
from tgen.executors.torch.mixers.streams import LayerStreams
from tgen.executors.torch.norms import make_norm
from tgen.spec.records import Activation, AttentionSpec, ExpertsSpec, FeedForward, LayerSpec, Mixer, MlpSpec, RouterSpec, SideBySideSpec
from tgen.spec.recurrent import ChannelMixSpec, GatedDeltaSpec, SelectiveSpec, ShortConvolutionSpec, StateSpaceSpec, TimeMixSpec
from tgen.spec.shapes import norm_names


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The non-linearity between the matrices of a feed-forward layer, element by element."""
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "silu":
            return F.silu(x)
        case "relu":
            return F.relu(x)
        case "relu2":
            return F.relu(x).square()
        case "xielu":
            raise ValueError("this activation has parameters, which an `Mlp` holds")


def scaled(x: Tensor, factor: float) -> Tensor:
    """x times the factor; x itself if the factor is 1, as in most models."""
    return x if factor == 1 else x * factor


def above(x: Tensor, deviations: float) -> Tensor:
    """max(0, x - bound), where the bound is the mean over the last axis plus `deviations` standard deviations."""
    bound = x.mean(-1, keepdim=True) + x.std(-1, keepdim=True, correction=0) * torch.tensor(deviations, dtype=x.dtype)
    return F.relu(x - bound)


class Mlp(nn.Module):
    """The feed-forward part of a layer. It works on each position alone, with a wider inner vector."""

    def __init__(self, spec: MlpSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.gate = nn.Linear(width, spec.width, bias=spec.bias) if spec.gated else None
        self.up = nn.Linear(width, spec.width, bias=spec.bias)
        self.down = nn.Linear(spec.width, width, bias=spec.bias)
        if spec.activation == "xielu":
            self.alpha_p, self.alpha_n, self.beta = (nn.Parameter(torch.empty(1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """x and the result are [..., width]."""
        if self.gate is None:
            inner = self._activate(self.up(x))
        elif self.spec.clamp is None:
            gate = scaled(self.gate(x), self.spec.gate_scale)
            gate = gate if self.spec.cutoff is None else above(gate, self.spec.cutoff)
            inner = self._activate(gate) * self.up(x)
        else:
            alpha, limit = self.spec.clamp.alpha, self.spec.clamp.limit
            gate = self.gate(x).clamp(max=limit)
            inner = (self.up(x).clamp(-limit, limit) + 1) * (gate * torch.sigmoid(gate * alpha))
        return scaled(self.down(inner), self.spec.out_scale)

    def _activate(self, x: Tensor) -> Tensor:
        if self.spec.activation != "xielu":
            return activate(x, self.spec.activation)
        rising = F.softplus(self.alpha_p) * x * x
        falling = (torch.expm1(x.clamp(max=-1e-6)) - x) * (self.beta + F.softplus(self.alpha_n))
        return torch.where(x > 0, rising, falling) + self.beta * x


class Experts(nn.Module):
    """A mixture of experts. Only experts that some token chose are computed, each for all of its tokens at once.

    The router stays in float32 whatever the model's number format, because a rounded score can choose another expert.
    """

    def __init__(self, spec: ExpertsSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.router = nn.Linear(width, spec.router.experts, bias=spec.router.bias)
        self.router_norm = make_norm(spec.router.norm, width) if spec.router.norm else None
        self.expert_scales = nn.Parameter(torch.ones(spec.router.experts)) if spec.router.expert_scales else None
        self.correction = nn.Parameter(torch.zeros(spec.router.experts)) if spec.router.correction else None
        inner = spec.inner or width
        self.inner_in = nn.Linear(width, inner, bias=spec.inner_bias) if spec.inner else None
        self.inner_out = nn.Linear(inner, width, bias=spec.inner_bias) if spec.inner else None
        self.experts = nn.ModuleList(Mlp(spec.expert, inner) for _ in range(spec.router.experts))
        self.shared = Mlp(spec.shared, width) if spec.shared else None
        self.shared_gate = nn.Linear(width, 1, bias=False) if spec.shared_gate else None

    def forward(self, x: Tensor, routed: Tensor | None = None) -> Tensor:
        """x and the result are [..., width]; the sum over experts is rounded once. The router reads `routed`, if given, in place of x."""
        flat = x.flatten(0, -2)
        seen = flat.float() if routed is None else routed.flatten(0, -2).float()
        logits = scaled(self.router(seen if self.router_norm is None else self.router_norm(seen)), self.spec.router.logit_scale)
        chosen, weights = choose(logits, self.correction, self.spec.router)
        weights = weights if self.expert_scales is None else weights * self.expert_scales[chosen]
        read = flat if self.inner_in is None else self.inner_in(flat)
        total = torch.zeros_like(read, dtype=torch.float32)
        for number in sorted(set(chosen.flatten().tolist())):
            tokens, places = torch.where(chosen == number)
            total.index_add_(0, tokens, self.experts[number](read[tokens]).float() * weights[tokens, places, None])
        if self.inner_out is not None:
            total = self.inner_out(total.to(x.dtype)).float()
        if self.shared is not None:
            gate = 1.0 if self.shared_gate is None else torch.sigmoid(self.shared_gate(flat).float())
            total += self.shared(flat).float() * gate
        return total.to(x.dtype).reshape(x.shape)


def choose(logits: Tensor, correction: Tensor | None, spec: RouterSpec) -> tuple[Tensor, Tensor]:
    """The indices and the weights of each token's experts, both [tokens, chosen], from the router's logits [tokens, experts]."""
    if spec.scores == "sparsemixer":
        return _mix(logits, spec)
    scores = logits.softmax(-1) if spec.scores == "softmax" else logits.sigmoid()
    wanted = scores if correction is None else scores + correction
    if spec.groups > 1:
        grouped = wanted.reshape(len(wanted), spec.groups, -1)
        best = grouped.topk(spec.group_best, dim=-1).values.sum(-1).topk(spec.kept_groups, dim=-1).indices
        kept = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, True)
        wanted = grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(-2)
    chosen = wanted.topk(spec.chosen, dim=-1).indices
    weights = scores.gather(-1, chosen)
    if spec.normalised:
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)
    return chosen, weights * spec.scale


def _mix(logits: Tensor, spec: RouterSpec) -> tuple[Tensor, Tensor]:
    """The choice of SparseMixer (arXiv:2409.12136), which chooses one expert after the other."""
    chosen, weights, left = [], [], logits
    for _ in range(spec.chosen):
        top, index = left.max(-1, keepdim=True)
        far = (top - logits) / logits.abs().clamp(min=top) > 2 * spec.jitter
        weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
        chosen.append(index)
        left = left.scatter(-1, index, -torch.inf)
    return torch.cat(chosen, -1), torch.cat(weights, -1)


def make_feed_forward(spec: FeedForward, width: int) -> Mlp | Experts:
    """The module for a spec."""
    match spec:
        case MlpSpec():
            return Mlp(spec, width)
        case ExpertsSpec():
            return Experts(spec, width)


class SideBySide(nn.Module):
    """The sum of the results of several mixers that read the same vectors."""

    def __init__(self, spec: SideBySideSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.mixers = nn.ModuleList(make_mixer(mixer, width) for mixer in spec.mixers)

    def forward(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        """x and the result are [batch, n, width]; `number` is that of the first mixer's cache."""
        parts = zip(self.mixers, self.spec.in_scales, self.spec.out_scales, strict=True)
        results = [scaled(mixer(scaled(x, before), this, number + place), after) for place, (mixer, before, after) in enumerate(parts)]
        return torch.stack(results).sum(dim=0)


def make_mixer(spec: Mixer, width: int) -> Attention | Recurrent | SideBySide:
    """The module for a spec."""
    match spec:
        case AttentionSpec():
            if spec.latent is not None:
                return LatentAttention(spec, spec.latent, width)
            if spec.aggregates is not None:
                return AggregateAttention(spec, width, spec.aggregates)
            if spec.shares is not None:
                return SharingAttention(spec, width)
            return DisentangledAttention(spec, width) if spec.disentangled else Attention(spec, width)
        case SideBySideSpec():
            return SideBySide(spec, width)
        case ShortConvolutionSpec():
            return ShortConvolution(spec, width)
        case SelectiveSpec():
            return Selective(spec, width)
        case StateSpaceSpec():
            return StateSpace(spec, width)
        case GatedDeltaSpec():
            return GatedDelta(spec, width)
        case TimeMixSpec():
            return TimeMix(spec, width)
        case ChannelMixSpec():
            return ChannelMix(spec, width)


class Layer(nn.Module):
    """Adds the outputs of its mixer and its feed-forward part to the residual stream; the spec says where the norms stand."""

    mixer_norm: nn.Module
    mixer_out_norm: nn.Module
    cross_norm: nn.Module
    feed_forward_norm: nn.Module
    feed_forward_out_norm: nn.Module
    dense_out_norm: nn.Module
    experts_norm: nn.Module
    experts_out_norm: nn.Module
    laurel_norm: nn.Module
    vector_norm: nn.Module

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.mixer = make_mixer(spec.mixer, width) if spec.mixer else None
        self.cross = Attention(spec.cross, width) if spec.cross else None
        self.feed_forward = make_feed_forward(spec.feed_forward, width) if spec.feed_forward else None
        self.experts = Experts(spec.experts, width) if spec.experts else None
        self.streams = LayerStreams(spec.streams, width, spec.norm) if spec.streams else None
        self.scale = nn.Parameter(torch.empty(1)) if spec.scaled else None
        if spec.laurel is not None:
            self.laurel_in, self.laurel_out = nn.Linear(width, spec.laurel, bias=False), nn.Linear(spec.laurel, width, bias=False)
        if spec.vector is not None:
            self.vector_gate = nn.Linear(width, spec.vector.width, bias=False)
            self.vector_out = nn.Linear(spec.vector.width, width, bias=False)
        for name in norm_names(spec):
            self.add_module(name, make_norm(spec.norm, width))

    def forward(self, x: Tensor, this: ForwardPass, number: int, vector: Tensor | None = None) -> Tensor:
        """x and the result are [batch, n, width], or [streams, batch, n, width].

        `number` is that of the first cache that the mixer writes or reads. `vector` [batch, n, ...] are the tokens' vectors for this layer.
        """
        if self.streams is not None:
            predicted = self.streams.predict(x)
            x = self.streams.correct(predicted, self._parts(predicted[self.streams.spec.active], this, number))
            return x if vector is None else torch.cat((x[:1], x[1:] + self._of_vector(vector, self.streams.read(x))))
        x = self._parts(x, this, number)
        if vector is not None:
            x = x + self._of_vector(vector, x)
        return x if self.scale is None else x * self.scale

    def _parts(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        """The residual stream x [batch, n, width] after the mixer and the feed-forward part."""
        if self.spec.residual == "pre":
            return self._pre(x, this, number)
        assert self.mixer is not None and self.feed_forward is not None
        match self.spec.residual:
            case "post":
                x = self.mixer_norm(x + self.mixer(x, this, number))
                if self.cross is not None:
                    x = self.cross_norm(x + self.cross.look(x, this, number))
                return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]
            case "sandwich":
                normed = self.mixer_norm(x)
                x = x + self.mixer_out_norm(self.mixer(normed, this, number))
                if self.spec.laurel is not None:
                    x = (x + (normed + self.laurel_norm(self.laurel_out(self.laurel_in(normed))))) / 2**0.5
                part = self.feed_forward(self.feed_forward_norm(x))
                if self.experts is not None:
                    part = self.dense_out_norm(part) + self.experts_out_norm(self.experts(self.experts_norm(x), x))
                return x + self.feed_forward_out_norm(part)  # type: ignore[no-any-return]
            case "output":
                x = x + self.mixer_out_norm(self.mixer(x, this, number))
                return x + self.feed_forward_out_norm(self.feed_forward(x))  # type: ignore[no-any-return]
            case "parallel":
                normed = self.mixer_norm(x)
                other = normed if self.spec.shared_norm else self.feed_forward_norm(x)
                return x + self.mixer(normed, this, number) + self.feed_forward(other)  # type: ignore[no-any-return]
        raise ValueError(f"no layer has its norms {self.spec.residual}")

    def _pre(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        if self.mixer is not None:
            x = x + self.mixer(self.mixer_norm(x) if self.spec.mixer_normed else x, this, number)
        if self.cross is not None:
            x = x + self.cross.look(self.cross_norm(x), this, number)
        return x if self.feed_forward is None else x + self.feed_forward(self.feed_forward_norm(x))

    def _of_vector(self, vector: Tensor, x: Tensor) -> Tensor:
        """The addition of the layer's vectors to a stream; x is the stream that makes their gate."""
        assert isinstance(self.spec.feed_forward, MlpSpec)
        gate = activate(self.vector_gate(x), self.spec.feed_forward.activation)
        return self.vector_norm(self.vector_out(gate * vector))  # type: ignore[no-any-return]

    @property
    def mixers(self) -> list[Attention | Recurrent]:
        """The mixers that have their own cache, in order."""
        parts = self.mixer.mixers if isinstance(self.mixer, SideBySide) else [self.mixer]
        return [part for part in parts if isinstance(part, Attention | Recurrent) and not isinstance(part, SharingAttention)]
