"""Layer norm and root-mean-square norm, of whole vectors and of attention heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.spec.records import AttentionSpec, NormSpec


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467), computed in float32 and rounded once.

    The weight stays in float32 whatever the model's number format: some families store weight - 1, and bfloat16 would round the sum.
    """

    def __init__(self, width: int, eps: float, *, weight: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last axis; the result has x's shape."""
        if x.is_cuda:  # torch's own function is one kernel, the code below is six
            return F.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps).to(x.dtype)
        wide = normalised(x, self.eps)
        return (wide if self.weight is None else wide * self.weight).to(x.dtype)


class HeadNorm(nn.Module):
    """A norm of queries or keys [batch, heads, n, head_dim] whose weight [heads * head_dim] differs from head to head."""

    def __init__(self, spec: NormSpec, heads: int, head_dim: int, *, together: bool) -> None:
        """With `together`, the mean and the mean square are those of all heads of a position, not of each head."""
        super().__init__()
        self.spec = spec
        self.together = together
        self.weight = nn.Parameter(torch.ones(heads * head_dim))
        self.bias = nn.Parameter(torch.zeros(heads * head_dim)) if spec.has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The result has x's shape."""
        wide = x.transpose(1, 2)
        wide = wide.flatten(2) if self.together else wide
        wide = normalised(wide, self.spec.eps, centred=self.spec.kind == "layer").flatten(2) * self.weight
        wide = wide if self.bias is None else wide + self.bias
        return wide.reshape(x.transpose(1, 2).shape).transpose(1, 2).to(x.dtype)


def normalised(x: Tensor, eps: float, *, centred: bool = False) -> Tensor:
    """x in float32 with a mean square of 1 over the last axis, and with a mean of 0 if `centred`."""
    wide = x.float()
    if centred:
        wide = wide - wide.mean(-1, keepdim=True)
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


def make_norm(spec: NormSpec, width: int) -> nn.Module:
    """The module for a spec."""
    if spec.kind == "rms":
        return RmsNorm(width, spec.eps, weight=spec.weight)
    return nn.LayerNorm(width, eps=spec.eps, elementwise_affine=spec.weight, bias=spec.bias)


def make_head_norm(spec: AttentionSpec, heads: int) -> nn.Module | None:
    """The module for the norm of queries or keys with this many heads; None if the spec has no such norm."""
    if spec.qk_norm is None:
        return None
    if spec.qk_norm_span == "head":
        return make_norm(spec.qk_norm, spec.head_dim)
    return HeadNorm(spec.qk_norm, heads, spec.head_dim, together=spec.qk_norm_span == "width")
