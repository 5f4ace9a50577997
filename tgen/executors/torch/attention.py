"""Attention: queries, keys and values from the residual stream, scores, weights, and the weighted sum.

The instance attribute `Attention.attend` holds the function that turns queries, keys and values into the weighted sum: another kernel or
a recorder of attention maps can replace it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.cache import KeyValues, empty_key_values
from tgen.executors.torch.forward_pass import ForwardPass, Part, joined
from tgen.executors.torch.norms import make_head_norm, make_norm
from tgen.executors.torch.positions import Distances, Frame, query_growth, rotate
from tgen.spec.records import AttentionSpec, LatentSpec

Attend = Callable[[Tensor, Tensor, Tensor, Frame, AttentionSpec, Tensor | None], Tensor]


def fused_attend(q: Tensor, k: Tensor, v: Tensor, frame: Frame, spec: AttentionSpec, sinks: Tensor | None = None) -> Tensor:
    """softmax(q k^T * scale + mask) v with torch's fused kernel.

    q is [batch, heads, n, head_dim], k and v are [batch, kv_heads, m, head_dim], sinks [heads]; the result has q's shape. Query heads that
    share a key head are stacked along the query axis, so keys are never copied to match them.
    """
    if spec.softcap is not None or sinks is not None:
        return plain_attend(q, k, v, frame, spec, sinks)  # the fused kernel supports neither
    if frame.causal_only(spec.window):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=spec.scale, enable_gqa=spec.heads != spec.kv_heads)
    mask = frame.mask(spec.window)
    groups = spec.heads // spec.kv_heads
    if groups == 1:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=spec.scale)
    batch, heads, n, head_dim = q.shape
    q = q.reshape(batch, spec.kv_heads, groups * n, head_dim)
    if mask is not None and mask.shape[1] == 1:
        mask = mask.repeat(1, 1, groups, 1)
    elif mask is not None:
        mask = mask.reshape(batch, spec.kv_heads, groups * n, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=spec.scale).reshape(batch, heads, n, head_dim)


def plain_attend(q: Tensor, k: Tensor, v: Tensor, frame: Frame, spec: AttentionSpec, sinks: Tensor | None = None) -> Tensor:
    """The same as `fused_attend`, with the same shapes, step by step (arXiv:1706.03762, section 3.2.1)."""
    weights = attention_weights(q, k, frame, spec, sinks)
    return weights @ v.repeat_interleave(spec.heads // spec.kv_heads, dim=1)


def attention_weights(q: Tensor, k: Tensor, frame: Frame, spec: AttentionSpec, sinks: Tensor | None = None) -> Tensor:
    """The weight that each query gives to each key, [batch, heads, n, m]. The weights of a query sum to 1, or to less with sinks."""
    k = k.repeat_interleave(spec.heads // spec.kv_heads, dim=1)
    scores = (q @ k.transpose(-1, -2)) * spec.scale
    if spec.softcap is not None:
        scores = softcap(scores, spec.softcap)
    if frame.causal_only(spec.window):
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    else:
        mask = frame.mask(spec.window)
        scores = scores if mask is None else scores + mask
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)), dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return weights if sinks is None else weights[..., :-1]


def softcap(x: Tensor, cap: float) -> Tensor:
    """Bound x smoothly to +-cap (Gemma 2, arXiv:2408.00118)."""
    return cap * torch.tanh(x / cap)


class Attention(nn.Module):
    """One layer's self-attention or cross-attention. Every matrix is an `nn.Linear`, so each may be swapped."""

    def __init__(self, spec: AttentionSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.attend: Attend = fused_attend
        self.q = nn.Linear(width, spec.heads * spec.head_dim, bias=spec.bias)
        self.k = nn.Linear(width, spec.kv_heads * spec.head_dim, bias=spec.bias)
        self.v = None if spec.values_are_keys else nn.Linear(width, spec.kv_heads * spec.head_dim, bias=spec.bias)
        self.v_norm = make_norm(spec.v_norm, spec.head_dim) if spec.v_norm else None
        self.out = nn.Linear(spec.heads * spec.head_dim, width, bias=spec.out_bias)
        self.q_norm = make_head_norm(spec, spec.heads)
        self.k_norm = make_head_norm(spec, spec.kv_heads)
        self.out_gate = nn.Linear(width, spec.heads * spec.head_dim, bias=spec.bias) if spec.gated else None
        self.sinks = nn.Parameter(torch.empty(spec.heads)) if spec.sinks else None
        self.distances = Distances(spec.distances) if spec.distances else None

    def make_cache(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """An empty cache for one row."""
        return empty_key_values(self.spec.kv_heads, self.spec.head_dim, device, dtype)

    def forward(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:
        """x and the result are [batch, n, width]. If the pass has rows, their caches take the new keys and values."""
        spec = self.spec
        q = self._split(self.q(x), spec.heads)
        k, v = self.project(x)
        if not spec.qk_norm_after_rope:
            q, k = self._normed(q, k)
        if spec.rope is not None:
            q, k = rotate(torch.cat((q, k), dim=1), this.rotations.of(spec.rope)).split_with_sizes((spec.heads, spec.kv_heads), dim=1)
        if spec.qk_norm_after_rope:
            q, k = self._normed(q, k)
        if spec.query_growth is not None:
            q = q * query_growth(spec.query_growth, this.positions, q.dtype)
        if this.counts is None:
            if this.keep is not None:
                k, v = this.keep(layer, torch.stack((k, v)))
            if layer in this.shared:
                this.shared[layer].append((k, v))
            return self._merge(self.attend(q, k, v, self.frame(this.parts[0], q, k, this), spec, self.sinks), x)
        # Each row attends to the keys and values of all ids that it has read.
        mixed = []
        queries, pairs = q.split_with_sizes(this.counts, dim=2), torch.cat((k, v)).split_with_sizes(this.counts, dim=2)
        for part, query, pair in zip(this.parts, queries, pairs, strict=True):
            keys, values = (pair if part.row is None else part.row.key_values(layer).store(part.row.length, pair)).chunk(2)
            if layer in this.shared:
                this.shared[layer].append((keys, values))
            mixed.append(self.attend(query, keys, values, self.frame(part, query, keys, this), spec, self.sinks))
        return self._merge(joined(mixed), x)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of x [batch, m, width], each [batch, kv_heads, m, head_dim]."""
        k = self._split(self.k(x), self.spec.kv_heads)
        v = k if self.v is None else self._split(self.v(x), self.spec.kv_heads)
        return k, v if self.v_norm is None else self.v_norm(v)

    def look(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:
        """Cross-attention to the keys and values of the rows' sources. Raises ValueError for rows without a source."""
        q = self._split(self.q(x), self.spec.heads)
        if sum(q[:, :, look.columns].shape[2] for look in this.looks) != q.shape[2]:
            raise ValueError("a decoder with cross-attention needs a source for every row")
        mixed = [self.attend(q[:, :, look.columns], *look.source.layers[layer], look.frame, self.spec, self.sinks) for look in this.looks]
        return self._merge(joined(mixed))

    def frame(self, part: Part, q: Tensor, k: Tensor, this: ForwardPass) -> Frame:  # noqa: ARG002
        """The part's geometry, with this layer's own bias by distance if it has one."""
        return part.frame if self.distances is None else part.frame.biased(self.distances)

    def _normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys after their norms, if the layer has these."""
        return (q, k) if self.q_norm is None or self.k_norm is None else (self.q_norm(q), self.k_norm(k))

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """[batch, n, heads * head_dim] -> [batch, heads, n, head_dim], bounded to +-clip if the spec has a clip."""
        batch, n, _ = x.shape
        x = x if self.spec.clip is None else x.clamp(-self.spec.clip, self.spec.clip)
        return x.reshape(batch, n, heads, self.spec.head_dim).transpose(1, 2)

    def _merge(self, mixed: Tensor, x: Tensor | None = None) -> Tensor:
        """[batch, heads, n, head_dim] -> [batch, n, width]. If the layer has a gate, the gate reads x."""
        mixed = mixed.transpose(1, 2).flatten(2)
        if x is not None and self.out_gate is not None:
            mixed = mixed * torch.sigmoid(self.out_gate(x))
        return self.out(mixed)  # type: ignore[no-any-return]


class LatentAttention(Attention):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): the cache holds one short vector for each token.

    Every step makes the keys and values of all heads from these vectors.
    """

    def __init__(self, spec: AttentionSpec, latent: LatentSpec, width: int) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.latent = latent
        self.out_gate = None
        self.attend = fused_attend
        self.rotated = spec.rope.dim if spec.rope else 0
        self.kept = spec.head_dim - self.rotated
        if latent.q_rank is not None:
            self.q_down = nn.Linear(width, latent.q_rank, bias=spec.bias)
            self.q_norm = make_norm(latent.norm, latent.q_rank)
        self.q = nn.Linear(latent.q_rank or width, spec.heads * spec.head_dim, bias=False)
        self.kv_down = nn.Linear(width, latent.kv_rank, bias=spec.bias)
        self.k_rotated = nn.Linear(width, self.rotated, bias=spec.bias)
        self.kv_norm = make_norm(latent.norm, latent.kv_rank)
        self.kv = nn.Linear(latent.kv_rank, spec.heads * (self.kept + latent.value_dim), bias=False)
        self.out = nn.Linear(spec.heads * latent.value_dim, width, bias=spec.out_bias)

    def make_cache(self, device: torch.device, dtype: torch.dtype) -> KeyValues:
        """An empty cache for one row."""
        return KeyValues(torch.empty(1, 1, 0, self.latent.kv_rank + self.rotated, device=device, dtype=dtype))

    def forward(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:
        """As `Attention.forward`."""
        q = self._split(self.q(x if self.latent.q_rank is None or self.q_norm is None else self.q_norm(self.q_down(x))), self.spec.heads)
        short = torch.cat((self.kv_norm(self.kv_down(x)), self.k_rotated(x)), dim=-1).unsqueeze(1)
        if self.spec.rope is not None:
            rotation = this.rotations.of(self.spec.rope, torch.float32)
            q, short = _turned(q, self.kept, rotation), _turned(short, self.latent.kv_rank, rotation)
        if this.counts is None:
            read = short if this.keep is None else this.keep(layer, short[None])[0]
            return self._merge(self.attend(q, *self._expanded(read), this.parts[0].frame, self.spec, None))
        mixed = []
        for part, query, one in zip(this.parts, q.split_with_sizes(this.counts, 2), short.split_with_sizes(this.counts, 2), strict=True):
            read = one if part.row is None else part.row.key_values(layer).store(part.row.length, one)
            mixed.append(self.attend(query, *self._expanded(read), part.frame, self.spec, None))
        return self._merge(joined(mixed))

    def _expanded(self, short: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [batch, heads, m, head_dim] and values [batch, heads, m, value_dim] of short vectors [batch, 1, m, kv_rank + rotated]."""
        latent, rotated = short.split_with_sizes((self.latent.kv_rank, self.rotated), dim=-1)
        both = self.kv(latent.squeeze(1)).unflatten(2, (self.spec.heads, -1)).transpose(1, 2)
        key, value = both.split_with_sizes((self.kept, self.latent.value_dim), dim=-1)
        return torch.cat((key, rotated.expand(-1, self.spec.heads, -1, -1)), dim=-1), value


def _turned(x: Tensor, start: int, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """x with its numbers from `start` on rotated. The rotation is computed in float32 and rounded once."""
    return torch.cat((x[..., :start], rotate(x[..., start:].float(), rotation).to(x.dtype)), dim=-1)
