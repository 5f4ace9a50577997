"""The transformer as torch modules, built from a spec alone. It knows no family, no checkpoint and no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.attention import softcap
from tgen.executors.torch.cache import Row, Source
from tgen.executors.torch.forward_pass import ForwardPass, Keep, packed_pass, step_pass, whole_pass
from tgen.executors.torch.layers import Experts, Layer, activate
from tgen.executors.torch.mixers.streams import LayerVectors, StreamEnds
from tgen.executors.torch.norms import HeadNorm, RmsNorm, make_norm
from tgen.executors.torch.positions import Distances, RelativeTable, sinusoids
from tgen.spec.positions import PositionTable
from tgen.spec.records import AttentionSpec, HeadSpec, LayerSpec, ModelSpec, StackSpec, TransformSpec

TIED = "head.out.weight"


class Positions(nn.Module):
    """A vector for each position, looked up or computed."""

    def __init__(self, spec: PositionTable, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.width = width
        self.weight = nn.Parameter(torch.empty(spec.length, width)) if spec.kind == "learned" else None

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """[batch, n, width] for positions [batch, n]; padding gets the vector of position 0, which nobody reads."""
        positions = positions.clamp(min=0)
        if self.weight is None:
            return sinusoids(positions + self.spec.offset, self.width, to_last=self.spec.to_last).to(dtype)
        return F.embedding(positions + self.spec.offset, self.weight)


class Stack(nn.Module):
    """All layers of an encoder or a decoder, with position vectors and norms before and after them."""

    def __init__(self, spec: StackSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        row = spec.embedding_in or width
        self.positions = Positions(spec.positions, row) if spec.positions else None
        self.types = nn.Embedding(spec.types, row, _weight=torch.empty(spec.types, row)) if spec.types else None
        self.bias = Distances(spec.bias) if spec.bias else None
        self.relative = RelativeTable(spec.relative, width) if spec.relative else None
        self.block_bias = Distances(spec.block_bias) if spec.block_bias else None
        self.embedding_norm = make_norm(spec.embedding_norm, row) if spec.embedding_norm else None
        self.embedding_in = nn.Linear(row, width) if spec.embedding_in else None
        first = spec.layers[0]
        self.vectors = LayerVectors(first.vector, len(spec.layers), width, first.norm) if first.vector else None
        self.streams = StreamEnds(first.streams, width) if first.streams else None
        self.layers = nn.ModuleList(Layer(layer, width) for layer in spec.layers)
        self.final_norm = make_norm(spec.final_norm, width) if spec.final_norm else None
        # The number of the first cache that each layer writes, or reads if the cache is another layer's.
        self._numbers = list(accumulate((layer.caches for layer in spec.layers[:-1]), initial=0))
        shared = {number: one for number, layer in enumerate(spec.layers) if (one := _shared_layer(layer)) is not None}
        for number, one in shared.items():
            self._numbers[number] = self._numbers[one]
        self._shared = {self._numbers[one] for one in shared.values()}

    def forward(self, x: Tensor, this: ForwardPass, ids: Tensor) -> Tensor:
        """Hidden states [batch, n, width] for ids [batch, n] and their embeddings x [batch, n, `embedding_in` or width]."""
        if self.spec.embedding_scale is not None:
            x = x * torch.tensor(self.spec.embedding_scale, dtype=x.dtype)
        vectors = [None] * len(self.layers) if self.vectors is None else self.vectors(ids, x)
        added = None if self.positions is None else self.positions(this.positions, x.dtype)
        if added is not None and not self.spec.positions_last:
            x = x + added
        if self.types is not None:
            x = x + self.types.weight[0]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if added is not None and self.spec.positions_last:
            x = x + added
        if self.embedding_in is not None:
            x = self.embedding_in(x)
        x = x.float() if self.spec.wide else x
        if self.relative is not None or self.block_bias is not None:
            this = replace(this, relative=self.relative, block_bias=self.block_bias)
        this = replace(this, shared={number: [] for number in self._shared})
        x = x if self.streams is None else self.streams.open(x)
        for _ in range(self.spec.rounds):
            for layer, number, vector in zip(self.layers, self._numbers, vectors, strict=True):
                x = layer(x, this, number, vector)
        x = x if self.streams is None else self.streams.close(x)
        return x.to(this.dtype) if self.final_norm is None else self.final_norm(x).to(this.dtype)

    def whole(self, ids: Tensor, x: Tensor, positions: Tensor | None, source: Source | None = None) -> Tensor:
        """The hidden states of a batch x [batch, n, width] that is read at once; positions [batch, n] are -1 at padding."""
        batch, n, _ = x.shape
        return self(x, whole_pass((batch, n), positions, source, x, self.bias, causal=self.spec.causal), ids)  # type: ignore[no-any-return]

    def packed(self, ids: Tensor, x: Tensor, rows: Sequence[Row | None], counts: Sequence[int]) -> Tensor:
        """The hidden states of rows packed into x [1, total, width], counts[r] ids of row r. The rows' caches hold these ids afterwards."""
        return self(x, packed_pass(rows, counts, x, self.bias, causal=self.spec.causal), ids)  # type: ignore[no-any-return]

    def step(self, ids: Tensor, x: Tensor, positions: Tensor, capacity: int, keep: Keep) -> Tensor:
        """The hidden states of one more id of each row, x [rows, 1, width] at positions [rows, 1], as in `step_pass`."""
        return self(x, step_pass(positions, capacity, keep, x, self.bias), ids)  # type: ignore[no-any-return]


def _shared_layer(layer: LayerSpec) -> int | None:
    """The number of the layer whose keys and values this one reads; None if it reads no other layer's."""
    return next((mixer.shares for mixer in layer.mixers if isinstance(mixer, AttentionSpec)), None)


class Transform(nn.Module):
    """The matrix, the activation and the norm that some models have before the head's matrix."""

    def __init__(self, spec: TransformSpec, width: int, row: int) -> None:
        super().__init__()
        self.spec = spec
        self.dense = nn.Linear(width, row, bias=spec.bias)
        self.norm = make_norm(spec.norm, row)

    def forward(self, x: Tensor) -> Tensor:
        """The result is [..., row] for x [..., width]."""
        return self.norm(activate(self.dense(x), self.spec.activation))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Computes logits from hidden states."""

    def __init__(self, spec: HeadSpec, vocab: int, width: int, row: int) -> None:
        super().__init__()
        self.spec = spec
        self.transform = Transform(spec.transform, width, row) if spec.transform else None
        self.out = nn.Linear(row, vocab, bias=spec.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] for hidden states [..., width], or [..., embedding width] if there is no transform."""
        spec = self.spec
        if self.transform is not None:
            hidden = self.transform(hidden)
        if spec.scale is not None:
            hidden = hidden * spec.scale
        logits: Tensor = self.out(hidden)
        return logits if spec.softcap is None else softcap(logits, spec.softcap)


class Transformer(nn.Module):
    """A whole model: embedding, encoder or decoder or both, head."""

    _place: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        # Given a weight, torch draws no random numbers; drawing them would import its whole compiler, which takes 1.2 s.
        row = spec.row
        self.embedding = nn.Embedding(spec.vocab, row, _weight=torch.empty(spec.vocab, row))
        self.embedding_in = nn.Linear(row, spec.width, bias=False) if spec.embedding_width else None
        self.embedding_out = nn.Linear(spec.width, row, bias=False) if spec.embedding_width else None
        self.encoder = Stack(spec.encoder, spec.width) if spec.encoder else None
        self.decoder = Stack(spec.decoder, spec.width) if spec.decoder else None
        self.head = Head(spec.head, spec.vocab, spec.width, row) if spec.head else None
        self.register_buffer("_place", torch.empty(0), persistent=False)
        if spec.head is not None and spec.head.tied:
            _share_embedding(self, None)
            self.register_state_dict_post_hook(_without_tied_head)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_share_embedding)  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """The device on which the model runs. A buffer keeps it, because any matrix may be swapped for a module of another kind."""
        return self._place.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of hidden states and of the cache; that of weights may differ."""
        return self._place.dtype

    def precise(self) -> set[str]:
        """The parameters that stay in float32 whatever the model's number format."""
        modules = dict(self.named_modules())
        kept = [name for name, module in modules.items() if isinstance(module, RmsNorm | HeadNorm)]
        kept += [f"{name}.router" for name, module in modules.items() if isinstance(module, Experts)]
        found = {f"{name}.{key}" for name in kept for key, _ in modules[name].named_parameters()}
        experts = [name for name, module in modules.items() if isinstance(module, Experts)]
        return found | {f"{name}.{key}" for name in experts for key in ("correction", "expert_scales")}

    def assign(self, state: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        """Use these tensors on `device` as the parameters, and compute in `dtype` from now on."""
        self.load_state_dict(state, strict=True, assign=True)
        self._place = torch.empty(0, device=device, dtype=dtype)

    def forward(self, ids: Tensor, positions: Tensor | None = None, source: Source | None = None) -> Tensor:
        """Hidden states of the decoder, or of an encoder-only model: [batch, n, width] for ids [batch, n], read without a cache.

        Positions are [batch, n], -1 at padding; None means 0..n-1 in every row. A decoder with cross-attention needs the source that
        `read_source` returned.
        """
        if self.decoder is None:
            return self.encode(ids, positions)
        return self.decoder.whole(ids, self._embed(ids), positions, source)

    def open_row(self, source: Source | None = None) -> Row:
        """A row that has read nothing. Raises ValueError if the model has no decoder, or if a source is missing or not needed."""
        if self.decoder is None or (source is None) != (self.encoder is None):
            raise ValueError("rows need a decoder, and a source if and only if the model has an encoder")
        layers = [layer for layer in self.decoder.layers if isinstance(layer, Layer)]
        return Row(0, [mixer.make_cache(self.device, self.dtype) for layer in layers for mixer in layer.mixers], source)

    def read(self, rows: Sequence[Row], blocks: Sequence[Sequence[int]]) -> Tensor:
        """Let each row read its block of ids, and return the decoder's hidden states of all blocks side by side, [total, width].

        The caches hold the blocks afterwards, but the caller must change each row's length. Until then, the blocks do not count.
        """
        if self.decoder is None:
            raise ValueError("this model has no decoder")
        return self.decoder.packed(*self._embedded(blocks), rows, list(map(len, blocks)))[0]

    def step(self, ids: Tensor, positions: Tensor, capacity: int, keep: Keep) -> Tensor:
        """The decoder's hidden states [rows, width] of one more id of each row, with ids and positions [rows, 1], as in `step_pass`."""
        if self.decoder is None:
            raise ValueError("this model has no decoder")
        return self.decoder.step(ids, self._embed(ids), positions, capacity, keep)[:, 0]

    def encode(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Hidden states of the encoder, [batch, n, width]. Raises ValueError if the model has no encoder."""
        if self.encoder is None:
            raise ValueError("this model has no encoder")
        return self.encoder.whole(ids, self._embed(ids), positions)

    def encode_texts(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """The hidden states of each text, [n, width]: the encoder's, or a lone decoder's. Each text has at least one id."""
        stack = self.encoder or self.decoder
        if stack is None:
            raise ValueError("this model has no layers")
        counts = list(map(len, texts))
        hidden = stack.packed(*self._embedded(texts), [None] * len(texts), counts)
        return list(torch.split(hidden[0], counts))

    def read_source(self, ids: Tensor, positions: Tensor | None = None) -> Source:
        """A batch of source texts [batch, m], encoded once. Raises ValueError if the model lacks an encoder or a decoder."""
        return Source(ids.shape[1], self._project(self.encode(ids, positions)), positions)

    def read_sources(self, texts: Sequence[Sequence[int]]) -> list[Source]:
        """A source for each text; the texts may differ in length."""
        return [Source(len(hidden), self._project(hidden[None])) for hidden in self.encode_texts(texts)]

    def _project(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The keys and values that each decoder layer's cross-attention makes of encoder states [batch, m, width]."""
        layers = self.decoder.layers if self.decoder is not None else ()
        projected = [layer.cross.project(hidden) for layer in layers if isinstance(layer, Layer) and layer.cross is not None]
        if not projected:
            raise ValueError("this model has no decoder with cross-attention")
        return projected

    def _embedded(self, blocks: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids [1, total] and embeddings [1, total, width] of blocks side by side."""
        ids = torch.tensor([[token for block in blocks for token in block]], device=self.device)
        return ids, self._embed(ids)

    def _embed(self, ids: Tensor) -> Tensor:
        """The embeddings [..., width] of ids [...]."""
        x: Tensor = self.embedding(ids)
        return x if self.embedding_in is None else self.embedding_in(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """A score for each token of the vocabulary, [..., vocab], for hidden states [..., width]. Raises ValueError without a head."""
        if self.head is None:
            raise ValueError("this model has no head")
        if self.embedding_out is not None:
            hidden = self.embedding_out(hidden)
        return self.head(hidden)  # type: ignore[no-any-return]


def _share_embedding(model: Transformer, incompatible: Any) -> None:
    """Let the head of a tied model use the embedding's parameter, also after loading, so that training updates one tensor once."""
    if model.head is not None and isinstance(model.head.out, nn.Linear):
        model.head.out.weight = model.embedding.weight
    if incompatible is not None:
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.endswith(TIED)]


def _without_tied_head(_model: Transformer, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    """Remove the shared tensor from a state, so that the state holds every tensor once."""
    state.pop(prefix + TIED, None)
