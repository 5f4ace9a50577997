"""Mixers that carry a state of fixed size from each position to the next, as data. Knows no tensor framework and no model family.

In place of keys and values of all positions, such a mixer's cache holds what it carries, so a row takes the same memory however much it has
read. A window is a convolution over the last few positions, each channel for itself; it carries all of these but the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """A number for each channel and each of the last `size` positions, which weighs their sum; a `bias` for each channel is added."""

    size: int
    bias: bool


@dataclass(frozen=True, slots=True)
class ShortConvolutionSpec:
    """A matrix makes vectors b, c and x of each position; the `result` matrix follows c * window(b * x) (LFM2, arXiv:2511.23404)."""

    window: WindowSpec
    bias: bool

    def carries(self, width: int) -> tuple[Shape, ...]:
        """The shapes of what the mixer carries in a model of this width."""
        return ((self.window.size - 1, width),)


@dataclass(frozen=True, slots=True)
class SelectiveSpec:
    """A selective state space (Mamba, arXiv:2312.00752): `inner` channels x, each with `state` numbers s.

    A matrix makes x and a gate z; SiLU follows the window over x. Of x, a second matrix makes vectors b and c of `state` numbers and a
    short one of `rank` numbers, of which a third makes each channel's step t > 0, by a softplus. Then s = exp(-exp(decay) * t) * s +
    t * x * b, and the result is the `result` matrix of (s . c + skip * x) * silu(z). With `norm_eps`, b, c and the short vector are divided
    by their root mean square (Falcon Mamba).
    """

    inner: int
    state: int
    rank: int
    window: WindowSpec
    bias: bool
    norm_eps: float | None = None

    def carries(self, width: int) -> tuple[Shape, ...]:  # noqa: ARG002
        """The shapes of what the mixer carries: channels of the window, and states."""
        return (self.window.size - 1, self.inner), (self.inner, self.state)


@dataclass(frozen=True, slots=True)
class StateSpaceSpec:
    """A state space of heads (Mamba 2, arXiv:2405.21060): every head has a matrix of `head_dim` by `state` numbers.

    One matrix makes a gate z, what goes through window and SiLU - each head's x, and b and c, which the heads of a group share - and
    each head's step t, by a softplus within `steps`. Then s = exp(-exp(decay) * t) * s + t * x b^T, and y = s c + skip * x. With
    `norm_eps` a norm over each of `norm_groups` parts of y follows, with the gate before it, or after it where `gate_last`; else y is
    only multiplied by silu(z). The `result` matrix makes the result. What the first matrix makes of z, x, b, c and t is multiplied by
    the five `scales`, if there are any.
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    window: WindowSpec
    bias: bool
    out_bias: bool
    norm_eps: float | None
    norm_groups: int = 1
    gate_last: bool = False
    steps: tuple[float, float] = (0.0, float("inf"))
    scales: tuple[float, ...] | None = None

    @property
    def inner(self) -> int:
        """The numbers of all heads."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """The channels of the window."""
        return self.inner + 2 * self.groups * self.state

    def carries(self, width: int) -> tuple[Shape, ...]:  # noqa: ARG002
        """The shapes of what the mixer carries: channels of the window, and states."""
        return (self.window.size - 1, self.channels), (self.heads, self.head_dim, self.state)


@dataclass(frozen=True, slots=True)
class GatedDeltaSpec:
    """A gated delta rule (arXiv:2412.06464): every value head has a matrix s, which returns a value v for a key k.

    Queries, keys and values go through window and SiLU, then queries and keys are divided by their length; value heads that
    stand together share a query and a key. A step decays s by exp(-exp(decay) * softplus(a + step_bias)), and then adds
    k (v - s^T k)^T * sigmoid(b), for numbers a and b of each head and position. The result is the `result` matrix of
    norm(s^T q * key_dim^-0.5) * silu(z), for a gate z and a norm over each head.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    window: WindowSpec
    norm_eps: float

    @property
    def keys(self) -> int:
        """The numbers of all keys of a position."""
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        """The numbers of all values of a position."""
        return self.value_heads * self.value_dim

    def carries(self, width: int) -> tuple[Shape, ...]:  # noqa: ARG002
        """The shapes of what the mixer carries: channels of the window, and matrices."""
        return (self.window.size - 1, 2 * self.keys + self.values), (self.value_heads, self.key_dim, self.value_dim)


@dataclass(frozen=True, slots=True)
class TimeMixSpec:
    """The first half of an RWKV layer (arXiv:2305.13048): a weighted mean of values, whose weights decay with distance.

    Receptance r, key k and value v are matrices of m * x + (1 - m) * x', for the position's vector x, that of the position before x', and
    numbers m of their own. With u = `first` and w = exp(`decay`), the weight of the value of this position is exp(u + k), and of one d
    positions before it exp(k - (d - 1) * w). The result is the `result` matrix of sigmoid(r) times the mean.
    """

    inner: int

    def carries(self, width: int) -> tuple[Shape, ...]:
        """The shapes of what the mixer carries: the last vector; sums of values and of weights, and the exponent that both lack."""
        return (1, width), (self.inner,), (self.inner,), (self.inner,)


@dataclass(frozen=True, slots=True)
class ChannelMixSpec:
    """The second half of an RWKV layer: sigmoid(r) * value(relu(k)^2), with receptance r and key k as in the first half."""

    inner: int

    def carries(self, width: int) -> tuple[Shape, ...]:
        """The shape of what the mixer carries: the last vector."""
        return ((1, width),)


RecurrentSpec = ShortConvolutionSpec | SelectiveSpec | StateSpaceSpec | GatedDeltaSpec | TimeMixSpec | ChannelMixSpec
