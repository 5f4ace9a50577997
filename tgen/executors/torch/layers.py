"""One block of a stack: a mixer, cross-attention, a feed-forward part, and the norms around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.attention import Attention
from tgen.executors.torch.forward_pass import ForwardPass
from tgen.executors.torch.norms import make_norm
from tgen.spec.records import Activation, AttentionSpec, FeedForward, LayerSpec, Mixer, MlpSpec
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
        """x is [batch, n, width], and so is the result."""
        inner = self._activate(self.up(x)) if self.gate is None else self._activate(self.gate(x)) * self.up(x)
        return self.down(inner)  # type: ignore[no-any-return]

    def _activate(self, x: Tensor) -> Tensor:
        if self.spec.activation != "xielu":
            return activate(x, self.spec.activation)
        rising = F.softplus(self.alpha_p) * x * x
        falling = (torch.expm1(x.clamp(max=-1e-6)) - x) * (self.beta + F.softplus(self.alpha_n))
        return torch.where(x > 0, rising, falling) + self.beta * x


def make_mixer(spec: Mixer, width: int) -> Attention:
    """The module for a spec."""
    match spec:
        case AttentionSpec():
            return Attention(spec, width)


def make_feed_forward(spec: FeedForward, width: int) -> Mlp:
    """The module for a spec."""
    match spec:
        case MlpSpec():
            return Mlp(spec, width)


class Layer(nn.Module):
    """Adds the outputs of its mixer and its feed-forward part to the residual stream; the spec says where the norms stand."""

    mixer_norm: nn.Module
    mixer_out_norm: nn.Module
    cross_norm: nn.Module
    feed_forward_norm: nn.Module
    feed_forward_out_norm: nn.Module

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.mixer = make_mixer(spec.mixer, width)
        self.cross = Attention(spec.cross, width) if spec.cross else None
        self.feed_forward = make_feed_forward(spec.feed_forward, width)
        for name in norm_names(spec):
            self.add_module(name, make_norm(spec.norm, width))

    def forward(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        """x is [batch, n, width], and so is the result; `number` selects this layer's cache."""
        match self.spec.residual:
            case "pre":
                x = x + self.mixer(self.mixer_norm(x), this, number)
                if self.cross is not None:
                    x = x + self.cross.look(self.cross_norm(x), this, number)
                return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]
            case "post":
                x = self.mixer_norm(x + self.mixer(x, this, number))
                if self.cross is not None:
                    x = self.cross_norm(x + self.cross.look(x, this, number))
                return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]
            case "sandwich":
                x = x + self.mixer_out_norm(self.mixer(self.mixer_norm(x), this, number))
                return x + self.feed_forward_out_norm(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]
            case "output":
                x = x + self.mixer_out_norm(self.mixer(x, this, number))
                return x + self.feed_forward_out_norm(self.feed_forward(x))  # type: ignore[no-any-return]
            case "parallel":
                normed = self.mixer_norm(x)
                other = normed if self.spec.shared_norm else self.feed_forward_norm(x)
                return x + self.mixer(normed, this, number) + self.feed_forward(other)  # type: ignore[no-any-return]
