"""A transformer's architecture as data. Knows no tensor framework, no checkpoint format and no model family.

A family file turns a `config.json` into these records; executors (torch now) run them. Layers are a tuple, so a model whose
layers differ from one another needs no field that describes the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tgen.spec.positions import Alibi, PositionTable, QueryGrowth, RelativeBias, RopeSpec
from tgen.spec.recurrent import RecurrentSpec
from tgen.spec.streams import LayerVectorSpec, StreamsSpec

Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "relu2", "xielu"]


@dataclass(frozen=True, slots=True)
class NormSpec:
    """A norm of a vector x, computed in float32 and rounded once, after the weight and the bias.

    "layer" is (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias, "rms" is x / sqrt(mean(x^2) + eps) * weight. Without
    `weight` a norm has no parameters; without `bias` a layer norm has a weight alone. A root-mean-square norm never has a bias.
    """

    kind: Literal["layer", "rms"]
    eps: float
    weight: bool = True
    bias: bool = True

    @property
    def has_bias(self) -> bool:
        """Whether the norm adds a bias."""
        return self.kind == "layer" and self.weight and self.bias


@dataclass(frozen=True, slots=True)
class RelativeVectors:
    """A learned vector for each bucket of distances, which attention compares with queries and keys (DeBERTa, arXiv:2006.03654).

    Distance d (query minus key) has the row clip(d, -span, span - 1) + span of 2 * span rows. Where `max_distance` is given, distances
    beyond span/2 share rows on a logarithmic scale that ends there. `norm` is applied to the vectors.
    """

    span: int
    max_distance: int | None = None
    norm: NormSpec | None = None


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """Keys and values of all heads from one short vector for each token (multi-head latent attention, arXiv:2405.04434).

    A matrix makes the short vector of `kv_rank` numbers, `norm` follows, and a second matrix makes each head's key and value of it. Only
    the last `rope.dim` numbers of a head are rotated; those of keys come from a matrix of their own, and all heads share them. With
    `q_rank`, queries go through a short vector and a norm as well. A value has `value_dim` numbers.
    """

    kv_rank: int
    q_rank: int | None
    value_dim: int
    norm: NormSpec


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """Further keys and values that an encoder's queries see, one for each block of `size` tokens of the text (LongT5, arXiv:2112.07916).

    A block's vector is the norm of the sum of what the layer reads of its tokens; the same matrices make its key and value. The stack's
    `block_bias` adds a number to its score, by its number minus that of the query's block. Tokens behind the last whole block belong to it.
    """

    size: int
    norm: NormSpec


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Multi-head attention; fewer `kv_heads` than `heads` is grouped-query attention.

    The order is: matrix, `clip` (queries, keys and values bounded to +-clip), `qk_norm`, `rope`, `query_growth`. `qk_norm_span` says what
    the norm of queries and keys spans: each head, with one weight [head_dim] for all heads ("head") or with a weight of its own ("own"),
    or all heads together ("width"); in these two cases the weight is [heads * head_dim], head by head. With `qk_norm_after_rope` the norm
    follows the rotation. `window` is how many of the latest keys a query sees, itself included, and as many of the next ones in a
    stack that is not causal; None is all of them. `softcap` bounds the scores to +-softcap by a tanh. With `sinks`, each head's softmax
    has one learned score more, whose weight goes to no key. `v_norm` is a norm of each head of the values. Where `values_are_keys`, there
    is no matrix for values: they are what the one for keys makes, before all that follows. With `shares`, keys and values are those of the
    layer of this number. Where `gated`, a further matrix makes a number for each of the mixed heads'
    numbers, whose sigmoid multiplies it before the last matrix. `distances` adds a number per distance, from a table of this layer's own
    (UMT5). Where `disentangled`, scores are scale * (q.k + q.K(r) + k.Q(r)) for the stack's vector r of the distance: K and Q are this
    layer's matrices for keys and queries. `aggregates` are further keys.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    bias: bool = False
    out_bias: bool = False
    clip: float | None = None
    qk_norm: NormSpec | None = None
    qk_norm_span: Literal["head", "own", "width"] = "head"
    qk_norm_after_rope: bool = False
    query_growth: QueryGrowth | None = None
    softcap: float | None = None
    sinks: bool = False
    v_norm: NormSpec | None = None
    values_are_keys: bool = False
    shares: int | None = None
    gated: bool = False
    latent: LatentSpec | None = None
    window: int | None = None
    rope: RopeSpec | None = None
    distances: RelativeBias | None = None
    disentangled: bool = False
    aggregates: AggregateSpec | None = None


@dataclass(frozen=True, slots=True)
class ClampedGate:
    """A gate g and an inner vector u that are bounded: min(g, limit) * sigmoid(alpha * min(g, limit)) * (u within +-limit, plus 1)."""

    alpha: float
    limit: float


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """Two matrices around an activation, or three when a gate multiplies the inner vector.

    With `clamp`, which needs a gate, its formula takes the place of the activation and of the product with the gate.

    "relu2" is max(x, 0)^2. "xielu" (arXiv:2411.13010) has three numbers of its own, alpha_p, alpha_n and beta; with
    softplus(a) = ln(1 + e^a), it is softplus(alpha_p) * x^2 + beta * x for x > 0, and elsewhere
    (e^min(x, -1e-6) - 1 - x) * (beta + softplus(alpha_n)) + beta * x.

    `gate_scale` multiplies the gate before its activation, `out_scale` the result. With `cutoff`, only what a gate has above the mean of
    all, by so many standard deviations, goes to the activation; the rest is 0.
    """

    width: int
    activation: Activation
    gated: bool
    bias: bool
    clamp: ClampedGate | None = None
    cutoff: float | None = None
    gate_scale: float = 1.0
    out_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """Which of the `experts` take part in a token, and with what weight. Everything is computed in float32.

    A matrix gives each expert a logit, with `bias` one number more. Softmax or sigmoid makes logits to scores, and the `chosen` experts
    with the highest scores take part, each with its score as weight. `correction` adds a learned number to each score for the choice alone.
    With `groups`, the experts stand in so many groups side by side, and only those of the best `kept_groups` can be chosen; a group is as
    good as its best expert, or as its best `group_best` together. The weights are divided by their sum if `normalised`, then multiplied by
    `scale`.

    "sparsemixer" (arXiv:2409.12136) chooses one after the other; a weight is a softmax over the expert, those not yet chosen, and
    only as far as (highest logit - logit) / max(|logit|, highest logit) is at most twice `jitter`.

    `norm` is applied to what the matrix reads, and `logit_scale` multiplies its results. With `expert_scales`, each expert has a number
    that multiplies its weight at last.
    """

    experts: int
    chosen: int
    scores: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
    bias: bool = False
    correction: bool = False
    normalised: bool = False
    scale: float = 1.0
    groups: int = 1
    kept_groups: int = 1
    group_best: int = 1
    jitter: float = 0.0
    norm: NormSpec | None = None
    logit_scale: float = 1.0
    expert_scales: bool = False


@dataclass(frozen=True, slots=True)
class ExpertsSpec:
    """A mixture of experts (arXiv:1701.06538): each token's result is the weighted sum of what its few experts make of it.

    Every token goes through the `shared` part as well; with `shared_gate` a row of numbers gives each token a logit, whose sigmoid
    multiplies the shared part's result. With `inner`, experts work on vectors of that width: a matrix makes these, and a second one takes
    the weighted sum back; both have biases where the shared part has (Nemotron 3).
    """

    router: RouterSpec
    expert: MlpSpec
    shared: MlpSpec | None = None
    shared_gate: bool = False
    inner: int | None = None

    @property
    def inner_bias(self) -> bool:
        """Whether the matrices around the experts have biases."""
        return self.shared is not None and self.shared.bias


@dataclass(frozen=True, slots=True)
class SideBySideSpec:
    """Several mixers that read the same vectors, and whose results are added (Falcon-H1, arXiv:2507.22448).

    What each mixer reads is multiplied by its number of `in_scales`, and its result by that of `out_scales`.
    """

    mixers: tuple[AttentionSpec | RecurrentSpec, ...]
    in_scales: tuple[float, ...]
    out_scales: tuple[float, ...]


# A mixer moves information between positions; a feed-forward part works on each position alone. A new kind needs a record in its union
# here, the shapes of its parameters in `shapes.py`, and in each executor a class and a branch where layers are built.
Mixer = AttentionSpec | RecurrentSpec | SideBySideSpec
FeedForward = MlpSpec | ExpertsSpec


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One block: a mixer, attention to an encoder if `cross` is set, then a feed-forward part, each added to the residual stream.

    `residual` is where the norms stand: before each part ("pre"), after each sum ("post"), before and after each part ("sandwich"),
    after each part but before the sum ("output"), or before a mixer and a feed-forward part that both read the same input ("parallel";
    `shared_norm` gives both the same norm). Without `mixer_normed`, the mixer of a "pre" layer reads the stream as it is (ModernBERT's
    first layer, which the norm of the embeddings precedes). A "pre" layer may lack one of its two parts, and that part's norm.

    A "sandwich" layer may have more. `experts` beside the feed-forward part have norms of their own before and after them, and so has the
    feed-forward part after it; their router reads the stream, and their results are added. `laurel` is the rank of two matrices; what the
    mixer reads, and a norm of what they make of it, are added to the stream after the mixer, which is then divided by sqrt(2). `vector` and
    `streams` are as their records say. Where `scaled`, one learned number multiplies the result.
    """

    mixer: Mixer | None
    feed_forward: FeedForward | None
    norm: NormSpec
    residual: Literal["pre", "post", "sandwich", "output", "parallel"] = "pre"
    shared_norm: bool = False
    mixer_normed: bool = True
    cross: AttentionSpec | None = None
    experts: ExpertsSpec | None = None
    laurel: int | None = None
    vector: LayerVectorSpec | None = None
    streams: StreamsSpec | None = None
    scaled: bool = False

    @property
    def mixers(self) -> tuple[AttentionSpec | RecurrentSpec, ...]:
        """The mixers side by side; one, or none."""
        if isinstance(self.mixer, SideBySideSpec):
            return self.mixer.mixers
        return () if self.mixer is None else (self.mixer,)

    @property
    def attention(self) -> AttentionSpec:
        """The mixer that is attention. Raises ValueError if there is none."""
        for mixer in self.mixers:
            if isinstance(mixer, AttentionSpec):
                return mixer
        raise ValueError("this layer has no attention")

    @property
    def caches(self) -> int:
        """How many of its mixers have a cache of their own."""
        return sum(not isinstance(mixer, AttentionSpec) or mixer.shares is None for mixer in self.mixers)


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The layers between embeddings and head, and how positions enter them.

    `types` is the number of segment types, each with its own vector (BERT); tgen gives every token type 0. An encoder may run all its
    layers `rounds` times, with the same weights (ALBERT). Where `embedding_in` is given, embeddings, positions, types and their norm have
    that width, and a matrix with a bias takes the result to the model's width (ALBERT, ELECTRA). `positions_last` adds positions after
    the embeddings' norm, not before it. Where `wide`, the residual stream is in float32 whatever the model's number format.
    """

    layers: tuple[LayerSpec, ...]
    causal: bool
    final_norm: NormSpec | None
    positions: PositionTable | None = None
    bias: Alibi | RelativeBias | None = None
    relative: RelativeVectors | None = None
    block_bias: RelativeBias | None = None
    types: int | None = None
    embedding_norm: NormSpec | None = None
    embedding_scale: float | None = None
    embedding_in: int | None = None
    positions_last: bool = False
    rounds: int = 1
    wide: bool = False

    @property
    def attentions(self) -> tuple[AttentionSpec, ...]:
        """Every attention of the layers, in the order they run."""
        return tuple(mixer for layer in self.layers for mixer in layer.mixers if isinstance(mixer, AttentionSpec))

    @property
    def recurrent(self) -> bool:
        """Whether a mixer carries a state, so that a cache cannot be cut back to any length."""
        return any(not isinstance(mixer, AttentionSpec) for layer in self.layers for mixer in layer.mixers)


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """A matrix, an activation and a norm between the last hidden state and the head (BERT, RoBERTa)."""

    activation: Activation
    norm: NormSpec
    bias: bool = True


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
    gives vectors only. Where `embedding_width` is given, embeddings and the head's matrix have rows of that width: the matrix
    `embedding_in` takes embeddings to `width` before positions are added, and `embedding_out` takes hidden states back before the head.
    """

    family: str
    vocab: int
    width: int
    context: int
    head: HeadSpec | None
    encoder: StackSpec | None = None
    decoder: StackSpec | None = None
    embedding_width: int | None = None

    @property
    def row(self) -> int:
        """The width of the embeddings and of the head's matrix."""
        return (self.encoder.embedding_in if self.encoder else None) or self.embedding_width or self.width

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
