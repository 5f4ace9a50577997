"""Disentangled attention (DeBERTa, arXiv:2006.03654): scores also compare queries and keys with vectors of relative positions."""

from __future__ import annotations

import torch
from torch import Tensor

from tgen.executors.torch.attention import Attention
from tgen.executors.torch.forward_pass import ForwardPass, Part
from tgen.executors.torch.positions import Frame


class DisentangledAttention(Attention):
    """Attention whose scores also depend on relative positions, whose vectors each layer projects to queries and keys."""

    def frame(self, part: Part, q: Tensor, k: Tensor, this: ForwardPass) -> Frame:
        """The part's geometry, with the bias (q . K(r) + k . Q(r)) * scale; K(r) and Q(r) are projections of the relative vector r."""
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
