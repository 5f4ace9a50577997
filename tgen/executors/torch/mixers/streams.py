"""What Gemma 3n and Gemma 4 add around the parts of a layer: a vector for each layer and token, and several residual streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgen.executors.torch.norms import make_norm
from tgen.spec.records import NormSpec
from tgen.spec.streams import LayerVectorSpec, StreamsSpec

LEAST = 1e-5  # a vector's mean square counts as at least this when it is scaled to the size of another


class LayerVectors(nn.Module):
    """Makes the tokens' vectors for all layers from ids and embeddings."""

    def __init__(self, spec: LayerVectorSpec, layers: int, width: int, norm: NormSpec) -> None:
        super().__init__()
        self.spec = spec
        self.table = nn.Embedding(spec.vocab, layers * spec.width, _weight=torch.empty(spec.vocab, layers * spec.width))
        self.matrix = nn.Linear(width, layers * spec.width, bias=False)
        self.norm = make_norm(norm, spec.width)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        """The vectors [layers, batch, n, spec.width] for ids [batch, n] and embeddings x [batch, n, width]."""
        rows = self.table(ids.masked_fill(ids >= self.spec.vocab, 0)) * torch.tensor(self.spec.width**0.5, dtype=x.dtype)
        made = self.norm((self.matrix(x) * x.shape[-1] ** -0.5).unflatten(-1, (-1, self.spec.width)))
        return ((made + rows.view_as(made)) * 0.5**0.5).movedim(-2, 0)  # type: ignore[no-any-return]


class StreamEnds(nn.Module):
    """Makes the streams from the embeddings before the first layer, and one hidden state from the streams after the last layer."""

    def __init__(self, spec: StreamsSpec, width: int) -> None:
        super().__init__()
        self.opening, self.closing = (nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(1, spec.count)) for _ in range(2))

    def open(self, x: Tensor) -> Tensor:
        """The streams [streams, batch, n, width] for embeddings x [batch, n, width]."""
        return torch.stack([x, *(_sized(matrix(x), x) for matrix in self.opening)])

    def close(self, x: Tensor) -> Tensor:
        """The hidden states [batch, n, width] for streams x [streams, batch, n, width]."""
        back = [_sized(matrix(stream), x[0]) for matrix, stream in zip(self.closing, x[1:], strict=True)]
        return torch.stack([x[0], *back]).mean(dim=0)


class LayerStreams(nn.Module):
    """Mixes a layer's streams before its parts, and corrects them after (AltUp, arXiv:2301.13310)."""

    def __init__(self, spec: StreamsSpec, width: int, norm: NormSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = make_norm(norm, width)
        self.router = nn.Linear(width, spec.count, bias=False)
        self.prediction = nn.Linear(spec.count, spec.count**2, bias=False)
        self.correction = nn.Linear(spec.count, spec.count, bias=False)
        self.scale = nn.Parameter(torch.empty(width)) if spec.scaled else None

    def predict(self, x: Tensor) -> Tensor:
        """The streams that the parts read, predicted from the streams x [streams, batch, n, width]."""
        weights = self.prediction(self._route(x[self.spec.active])).unflatten(-1, (self.spec.count, -1))
        return x + torch.einsum("sbnw,bnts->tbnw", x, weights)

    def correct(self, predicted: Tensor, made: Tensor) -> Tensor:
        """The predicted streams, corrected by the result `made` [batch, n, width] of the parts for the active stream."""
        weights: Tensor = self.correction(self._route(made)) + 1.0
        return predicted + (made - predicted[self.spec.active]) * weights.movedim(-1, 0).unsqueeze(-1)

    def read(self, x: Tensor) -> Tensor:
        """The active stream of x, scaled, from which the gate of the layer's vector is made."""
        active = x[self.spec.active]
        return active if self.scale is None else active * self.scale

    def _route(self, x: Tensor) -> Tensor:
        routed: Tensor = self.router(self.norm(x) * (1 / x.shape[-1]))
        return torch.tanh(routed.float()).to(x.dtype)


def _sized(x: Tensor, like: Tensor) -> Tensor:
    """x with the root mean square of `like` over the last axis."""
    return x * like.pow(2).mean(-1, keepdim=True).sqrt() / x.pow(2).mean(-1, keepdim=True).clamp(min=LEAST).sqrt()
