"""The transformer as torch modules, built from a spec alone. Knows no family, no checkpoint and no text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.model.attention import Attention
from tgen.model.cache import Cache, LayerCache
from tgen.model.norms import make_norm
from tgen.model.positions import Frame
from tgen.spec import Activation, LayerSpec, MlpSpec, ModelSpec, StackSpec


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
    """One block of the stack: what attention and the feed-forward part find is added to the residual stream."""

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec.norm, width)
        self.attention = Attention(spec.attention, width)
        self.mlp_norm = make_norm(spec.norm, width)
        self.mlp = Mlp(spec.mlp, width)

    def forward(self, x: Tensor, frame: Frame, cache: LayerCache | None) -> Tensor:
        """x is [batch, n, width], and so is the result."""
        x = x + self.attention(self.attention_norm(x), frame, cache)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """All layers, with what comes before the first and after the last."""

    def __init__(self, spec: StackSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.positions = nn.Embedding(spec.positions.length, width) if spec.positions else None
        self.embedding_norm = make_norm(spec.embedding_norm, width) if spec.embedding_norm else None
        self.layers = nn.ModuleList(Layer(layer, width) for layer in spec.layers)
        self.final_norm = make_norm(spec.final_norm, width)

    def forward(self, x: Tensor, positions: Tensor | None, cache: Cache | None) -> Tensor:
        """x is [batch, n, width] embeddings; positions are [batch, n], or None for 0..n-1 in every row. Returns [batch, n, width]."""
        frame = self._frame(x, positions, cache)
        if self.positions is not None:
            x = x + self.positions(frame.queries.clamp(min=0))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        for index, layer in enumerate(self.layers):
            x = layer(x, frame, cache.layers[index] if cache is not None else None)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def _frame(self, x: Tensor, positions: Tensor | None, cache: Cache | None) -> Frame:
        plain = positions is None
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        if cache is None:
            return Frame(positions, positions, x.dtype, self.spec.bias, simple=plain)
        first = cache.used == 0
        cache.reserve(positions)
        keys = cache.positions[:, : cache.used]
        latest = positions.shape[1] == 1 and not cache.gaps
        return Frame(positions, keys, x.dtype, self.spec.bias, simple=plain and first, latest=latest)


class Transformer(nn.Module):
    """A decoder-only model: embedding, stack, head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocab, spec.width)
        self.decoder = Stack(spec.decoder, spec.width)
        self.head = None if spec.head.tied else nn.Linear(spec.width, spec.vocab, bias=False)

    def forward(self, ids: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Hidden states after the final norm, [batch, n, width], for ids [batch, n]; positions as in `Stack.forward`."""
        return self.decoder(self.embedding(ids), positions, cache)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """A score per word of the vocabulary, [..., vocab], for hidden states [..., width]."""
        return F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)
