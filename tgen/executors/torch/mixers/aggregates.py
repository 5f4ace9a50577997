"""Attention to near keys and to one key for each block of the text (LongT5's transient-global attention, arXiv:2112.07916)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tgen.executors.torch.attention import Attention
from tgen.executors.torch.forward_pass import ForwardPass, Part, joined
from tgen.executors.torch.norms import make_norm
from tgen.executors.torch.positions import Distances, Frame
from tgen.spec.records import AggregateSpec, AttentionSpec


class AggregateFrame(Frame):
    """A part's geometry with further keys, one for each block: `side` [batch, heads, n, blocks] is added to their scores."""

    def __init__(self, near: Frame, side: Tensor) -> None:
        super().__init__(near.queries, near.keys, near.dtype, near.bias, causal=near.causal)
        self._side = side

    def mask(self, window: int | None) -> Tensor | None:
        """The numbers added to the scores of near keys, and then of blocks, [batch, heads, n, m + blocks]."""
        near = super().mask(window)
        if near is None:
            raise ValueError("attention to blocks needs numbers for distances")
        return torch.cat((near.expand(-1, self._side.shape[1], -1, -1), self._side.to(near.dtype)), dim=-1)


class AggregateAttention(Attention):
    """Attention whose keys are the tokens within the window and the sums of all blocks of tokens."""

    def __init__(self, spec: AttentionSpec, width: int, blocks: AggregateSpec) -> None:
        super().__init__(spec, width)
        self.blocks = blocks
        self.block_norm = make_norm(blocks.norm, width)

    def forward(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:  # noqa: ARG002
        """x and the result are [batch, n, width]. There is no cache, because an encoder reads a text at once."""
        counts = [x.shape[1]] if this.counts is None else this.counts
        parts = zip(this.parts, x.split_with_sizes(counts, dim=1), strict=True)
        if this.block_bias is None:
            raise ValueError("attention to blocks needs a stack with numbers for them")
        return self._merge(joined([self._mixed(part, own, this.block_bias) for part, own in parts]))

    def _mixed(self, part: Part, x: Tensor, distances: Distances) -> Tensor:
        """The mixed heads [batch, heads, n, head_dim] of a part's tokens."""
        (k, v), q = self.project(x), self._split(self.q(x), self.spec.heads)
        positions, size = part.frame.queries, self.blocks.size
        whole = (positions >= 0).sum(dim=-1, keepdim=True) // size  # tokens after the last whole block belong to that block
        block = torch.where(positions >= 0, torch.minimum(positions // size, whole - 1), -1)
        count = int(whole.max())
        if not count:
            return self.attend(q, k, v, part.frame, self.spec, self.sinks)
        members = F.one_hot(block + 1, count + 1)[..., 1:].to(x.dtype)
        side_k, side_v = self.project(self.block_norm(members.transpose(1, 2) @ x))
        numbers = torch.arange(count, device=x.device)
        # A padding query may see every block, as it sees every key.
        hidden = (numbers >= whole).unsqueeze(1) & (positions >= 0).unsqueeze(-1)
        bias = distances(numbers - block.unsqueeze(-1)).masked_fill(hidden.unsqueeze(1), -torch.inf)
        frame = AggregateFrame(part.frame, bias)
        return self.attend(q, torch.cat((k, side_k), dim=2), torch.cat((v, side_v), dim=2), frame, self.spec, self.sinks)
