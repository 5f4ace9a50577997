"""Disentangled attention (DeBERTa, arXiv:2006.03654): scores also compare queries and keys with vectors of their distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tgen.executors.torch.attention import Attention
from tgen.executors.torch.forward_pass import ForwardPass, Part
from tgen.executors.torch.norms import make_norm
from tgen.executors.torch.positions import Frame
from tgen.spec.records import RelativeVectors


class RelativeTable(nn.Module):
    """The vectors of distances, which all layers of a stack share."""

    def __init__(self, spec: RelativeVectors, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(2 * spec.span, width))
        self.norm = make_norm(spec.norm, width) if spec.norm else None

    def forward(self) -> Tensor:
        """All vectors, [2 * span, width]."""
        return self.weight if self.norm is None else self.norm(self.weight)  # type: ignore[no-any-return]

    def rows(self, distances: Tensor) -> Tensor:
        """The row of each distance (key minus query)."""
        span, back = self.spec.span, -distances
        if self.spec.max_distance is not None:
            exact = span // 2
            far = torch.log(back.abs().clamp(min=1) / exact) / math.log((self.spec.max_distance - 1) / exact) * (exact - 1)
            back = torch.where(back.abs() <= exact, back, (torch.ceil(far).long() + exact) * back.sign())
        return (back + span).clamp(0, 2 * span - 1)


class DisentangledAttention(Attention):
    """Attention whose scores also depend on distances, by vectors that this layer projects as queries and as keys."""

    def frame(self, part: Part, q: Tensor, k: Tensor, this: ForwardPass) -> Frame:
        """The part's geometry, with these numbers added to the scores: q.K(r) + k.Q(r), scaled."""
        table = this.relative
        if table is None:
            raise ValueError("disentangled attention needs a stack with vectors of distances")
        vectors = table()[None]
        q_of, k_of = self._split(self.q(vectors), self.spec.heads), self._split(self.k(vectors), self.spec.heads)

        def bias(distances: Tensor) -> Tensor:
            rows = table.rows(distances).unsqueeze(1).expand(-1, self.spec.heads, -1, -1)
            seen = torch.gather(q @ k_of.transpose(-1, -2), -1, rows)
            looked = torch.gather(k @ q_of.transpose(-1, -2), -1, rows.transpose(-1, -2)).transpose(-1, -2)
            return (seen + looked) * self.spec.scale

        return part.frame.biased(bias)
