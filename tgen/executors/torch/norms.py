"""Layer norm and root-mean-square norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgen.spec.records import NormSpec


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467), computed in float32 and rounded once.

    The weight stays in float32 whatever the model's number format: some families store weight - 1, and bfloat16 would round the sum.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last axis; the result has x's shape."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


def make_norm(spec: NormSpec, width: int) -> nn.Module:
    """The module for a spec."""
    if spec.kind == "rms":
        return RmsNorm(width, spec.eps)
    return nn.LayerNorm(width, eps=spec.eps)
