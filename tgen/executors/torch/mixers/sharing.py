"""Attention to the keys and values of an earlier layer; it makes none itself."""

from __future__ import annotations

from torch import Tensor, nn

from tgen.executors.torch.attention import Attention, fused_attend
from tgen.executors.torch.forward_pass import ForwardPass, joined
from tgen.executors.torch.norms import make_head_norm
from tgen.executors.torch.positions import rotate
from tgen.spec.records import AttentionSpec


class SharingAttention(Attention):
    """Attention that makes only queries, and has no cache of its own."""

    def __init__(self, spec: AttentionSpec, width: int) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.attend = fused_attend
        self.q = nn.Linear(width, spec.heads * spec.head_dim, bias=spec.bias)
        self.out = nn.Linear(spec.heads * spec.head_dim, width, bias=spec.out_bias)
        self.q_norm = make_head_norm(spec, spec.heads)
        self.out_gate = None

    def forward(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:
        """As `Attention.forward`; `layer` is the number of the cache whose keys and values it reads."""
        q = self._split(self.q(x), self.spec.heads)
        if self.q_norm is not None and not self.spec.qk_norm_after_rope:
            q = self.q_norm(q)
        if self.spec.rope is not None:
            q = rotate(q, this.rotations.of(self.spec.rope))
        if self.q_norm is not None and self.spec.qk_norm_after_rope:
            q = self.q_norm(q)
        queries = [q] if this.counts is None else q.split_with_sizes(this.counts, dim=2)
        pairs = zip(this.parts, queries, this.shared[layer], strict=True)
        return self._merge(joined([self.attend(query, *kv, part.frame, self.spec, None) for part, query, kv in pairs]))
