"""One block of a stack: attention, attention to an encoder, feed-forward, and the norms around them. Knows no family."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.attention import Attention
from tgen.executors.torch.forward_pass import ForwardPass
from tgen.executors.torch.norms import make_norm
from tgen.spec.records import Activation, LayerSpec, MlpSpec
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


class Mlp(nn.Module):
    """The feed-forward part of a layer: each position by itself, wider inside than outside."""

    def __init__(self, spec: MlpSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.gate = nn.Linear(width, spec.width, bias=spec.bias) if spec.gated else None
        self.up = nn.Linear(width, spec.width, bias=spec.bias)
        self.down = nn.Linear(spec.width, width, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x is [batch, n, width], and so is the result."""
        if self.gate is None:
            inner = activate(self.up(x), self.spec.activation)
        else:
            inner = activate(self.gate(x), self.spec.activation) * self.up(x)
        return self.down(inner)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """What attention and the feed-forward part find is added to the residual stream; where the norms stand is the spec's choice."""

    attention_norm: nn.Module
    attention_out_norm: nn.Module
    cross_norm: nn.Module
    mlp_norm: nn.Module
    mlp_out_norm: nn.Module

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.attention = Attention(spec.attention, width)
        self.cross = Attention(spec.cross, width) if spec.cross else None
        self.mlp = Mlp(spec.mlp, width)
        for name in norm_names(spec):
            self.add_module(name, make_norm(spec.norm, width))

    def forward(self, x: Tensor, this: ForwardPass, number: int) -> Tensor:
        """x is [batch, n, width], and so is the result; `number` tells this layer's cache from those of the others."""
        match self.spec.residual:
            case "pre":
                x = x + self.attention(self.attention_norm(x), this, number)
                if self.cross is not None:
                    x = x + self.cross.look(self.cross_norm(x), this, number)
                return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]
            case "post":
                x = self.attention_norm(x + self.attention(x, this, number))
                if self.cross is not None:
                    x = self.cross_norm(x + self.cross.look(x, this, number))
                return self.mlp_norm(x + self.mlp(x))  # type: ignore[no-any-return]
            case "sandwich":
                x = x + self.attention_out_norm(self.attention(self.attention_norm(x), this, number))
                return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]
            case "parallel":
                normed = self.attention_norm(x)
                other = normed if self.spec.shared_norm else self.mlp_norm(x)
                return x + self.attention(normed, this, number) + self.mlp(other)  # type: ignore[no-any-return]
