"""A transformer's architecture as data. Knows no tensor framework, no checkpoint format and no model family.

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
    """Position vectors that are added to the embeddings: learned, or sines and cosines (arXiv:1706.03762, section 3.5).

    Position p has row p + `offset` of the `length` rows, because some families keep the first rows for padding.
    """

    kind: Literal["learned", "sinusoid"]
    length: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Alibi:
    """A linear penalty on distance added to the scores, one slope per head (arXiv:2108.12409)."""

    heads: int


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """A learned number per head and bucket of distances added to the scores (arXiv:1910.10683, section 2.1).

    Half of the buckets hold one distance each, the others logarithmic ranges up to `max_distance`. `bidirectional` keeps separate buckets
    for keys before and after the query.
    """

    heads: int
    buckets: int
    max_distance: int
    bidirectional: bool


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Multi-head attention; fewer `kv_heads` than `heads` is grouped-query attention.

    `window` is how many of the latest keys a query sees, itself included; None is all of them. `softcap` bounds the scores to
    +-softcap by a tanh.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    bias: bool = False
    out_bias: bool = False
    qk_norm: NormSpec | None = None
    softcap: float | None = None
    window: int | None = None
    rope: RopeSpec | None = None


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """Two matrices around an activation, or three when a gate multiplies the inner vector."""

    width: int
    activation: Activation
    gated: bool
    bias: bool


# A mixer moves information between positions; a feed-forward part works on each position alone. A new kind needs a record in its union
# here, the shapes of its parameters in `shapes.py`, and in each executor a class and a branch where layers are built.
Mixer = AttentionSpec
FeedForward = MlpSpec


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One block: a mixer, attention to an encoder if `cross` is set, then a feed-forward part, each added to the residual stream.

    `residual` is where the norms stand: before each part ("pre"), after each sum ("post"), before and after each part ("sandwich"), or
    before a mixer and a feed-forward part that both read the same input ("parallel"; `shared_norm` gives both the same norm).
    """

    mixer: Mixer
    feed_forward: FeedForward
    norm: NormSpec
    residual: Literal["pre", "post", "sandwich", "parallel"] = "pre"
    shared_norm: bool = False
    cross: AttentionSpec | None = None


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The layers between embeddings and head, and how positions enter them.

    `types` is the number of segment types, each with its own vector (BERT); tgen gives every token type 0.
    """

    layers: tuple[LayerSpec, ...]
    causal: bool
    final_norm: NormSpec | None
    positions: PositionTable | None = None
    bias: Alibi | RelativeBias | None = None
    types: int | None = None
    embedding_norm: NormSpec | None = None
    embedding_scale: float | None = None


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """A matrix, an activation and a norm between the last hidden state and the head (BERT, RoBERTa)."""

    activation: Activation
    norm: NormSpec


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The matrix from the last hidden state to logits; `tied` means it is the embedding.

    Hidden states are multiplied by `scale` before it; logits are bounded to +-softcap by a tanh after it.
    """

    tied: bool
    bias: bool = False
    scale: float | None = None
    softcap: float | None = None
    transform: TransformSpec | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A whole model: `vocab` rows of embeddings of `width`, one or two stacks, a head, and the context it was made for.

    A decoder alone continues a text, an encoder alone reads one, both together turn one text into another. A model without a head
    gives vectors only.
    """

    family: str
    vocab: int
    width: int
    context: int
    head: HeadSpec | None
    encoder: StackSpec | None = None
    decoder: StackSpec | None = None

    @property
    def kind(self) -> Literal["decoder-only", "encoder-only", "encoder-decoder"]:
        """Which of the three kinds of transformer this is."""
        if self.encoder is None:
            return "decoder-only"
        return "encoder-only" if self.decoder is None else "encoder-decoder"

    @property
    def stacks(self) -> dict[str, StackSpec]:
        """The stacks by name, in the order they run."""
        named = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: stack for name, stack in named.items() if stack is not None}
