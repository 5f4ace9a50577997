"""What a transformer is, as data. Knows no tensor framework, no checkpoint format and no model family.

A family file turns a `config.json` into these records; executors (torch now) run them. Layers are a tuple, so a model whose
layers differ from one another needs no field that describes the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]


@dataclass(frozen=True, slots=True)
class NormSpec:
    """Layer norm (with a bias) or root-mean-square norm (without one)."""

    kind: Literal["layer", "rms"]
    eps: float


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Every rotation slowed down by one factor (position interpolation, arXiv:2306.15595)."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Slow rotations slowed down further, fast ones kept, a blend between (Llama 3.1)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding over the first `dim` components of each head (arXiv:2104.09864)."""

    dim: int
    theta: float
    scaling: LinearScaling | Llama3Scaling | None = None


@dataclass(frozen=True, slots=True)
class PositionTable:
    """Learned position vectors that are added to the embeddings; row 0 belongs to position 0."""

    length: int


@dataclass(frozen=True, slots=True)
class Alibi:
    """A linear penalty on distance added to the scores, one slope per head (arXiv:2108.12409)."""

    heads: int


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Multi-head attention; fewer `kv_heads` than `heads` is grouped-query attention.

    `window` is how many of the latest keys a query sees, itself included; None is all of them.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    bias: bool = False
    out_bias: bool = False
    qk_norm: NormSpec | None = None
    window: int | None = None
    rope: RopeSpec | None = None


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """Two matrices around an activation, or three when a gate multiplies the inner vector."""

    width: int
    activation: Activation
    gated: bool
    bias: bool


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One block: attention, then feed-forward, each normed before and added to the residual stream."""

    attention: AttentionSpec
    mlp: MlpSpec
    norm: NormSpec


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The layers between embeddings and head, and how positions enter them."""

    layers: tuple[LayerSpec, ...]
    final_norm: NormSpec
    positions: PositionTable | None = None
    bias: Alibi | None = None
    embedding_norm: NormSpec | None = None


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The matrix from the last hidden state to logits; `tied` means it is the embedding."""

    tied: bool


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A whole model: `vocab` rows of embeddings of `width`, a stack, a head, and the context it was made for."""

    family: str
    vocab: int
    width: int
    context: int
    head: HeadSpec
    decoder: StackSpec
