"""The two halves of an RWKV layer (arXiv:2305.13048): a weighted mean over positions, and a feed-forward part that reads two positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.cache import Carry
from tgen.executors.torch.mixers.recurrent import Recurrent
from tgen.spec.recurrent import ChannelMixSpec, TimeMixSpec

NEVER = -1e38  # an exponent that stands for a weight of 0


class TimeMix(Recurrent):
    """A mean of the values of all positions so far, whose weights decay with distance."""

    def __init__(self, spec: TimeMixSpec, width: int) -> None:
        super().__init__(spec, width)
        self.mix_r, self.mix_k, self.mix_v = (nn.Parameter(torch.empty(width)) for _ in range(3))
        self.r, self.k, self.v = (nn.Linear(width, spec.inner, bias=False) for _ in range(3))
        self.decay = nn.Parameter(torch.empty(spec.inner))
        self.first = nn.Parameter(torch.empty(spec.inner))
        self.result = nn.Linear(spec.inner, width, bias=False)

    def empty(self, batch: int, device: torch.device) -> Carry:
        """Sums of 0, and the exponent that stands for a weight of 0."""
        *zeros, highest = super().empty(batch, device)
        return *zeros, highest + NEVER

    def project(self, x: Tensor) -> Tensor:
        """The vectors themselves, because the matrices read a mixture of two positions, which `scan` makes."""
        return x

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`. The sums are kept without the common factor exp(highest), which would overflow."""
        before, after = shifted(given, carry[0])
        keys, values = (matrix(mixed(given, before, mix)).float() for matrix, mix in ((self.k, self.mix_k), (self.v, self.mix_v)))
        decay, first = -self.decay.float().exp(), self.first.float()
        total, weights, highest = carry[1:]
        results = []
        for place in range(given.shape[1]):
            key, value = keys[:, place], values[:, place]
            top = torch.maximum(highest, key + first)
            old, new = (highest - top).exp(), (key + first - top).exp()
            results.append((old * total + new * value) / (old * weights + new))
            top = torch.maximum(highest + decay, key)
            old, new = (highest + decay - top).exp(), (key - top).exp()
            total, weights, highest = old * total + new * value, old * weights + new, top
        receptance = torch.sigmoid(self.r(mixed(given, before, self.mix_r)))
        return receptance * torch.stack(results, dim=1).to(given.dtype), (after, total, weights, highest)


class ChannelMix(Recurrent):
    """A feed-forward part whose matrices read a mixture of each position and the one before it."""

    def __init__(self, spec: ChannelMixSpec, width: int) -> None:
        super().__init__(spec, width)
        self.mix_r, self.mix_k = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.r = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, spec.inner, bias=False)
        self.v = nn.Linear(spec.inner, width, bias=False)
        self.result = nn.Identity()

    def project(self, x: Tensor) -> Tensor:
        """The vectors themselves, because the matrices read a mixture of two positions, which `scan` makes."""
        return x

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`."""
        before, after = shifted(given, carry[0])
        inner = F.relu(self.k(mixed(given, before, self.mix_k))).square()
        return torch.sigmoid(self.r(mixed(given, before, self.mix_r))) * self.v(inner), (after,)


def shifted(x: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """The vector before each position of x, [batch, n, width], and the last vector of x, which the next call takes as `last`."""
    return torch.cat((last.to(x.dtype), x[:, :-1]), dim=1), x[:, -1:].float()


def mixed(x: Tensor, before: Tensor, mix: Tensor) -> Tensor:
    """A mixture of each position and the one before it, channel by channel."""
    return x * mix + before * (1 - mix)
