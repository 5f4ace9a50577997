"""The gated delta rule (arXiv:2412.06464): each head has a matrix that maps keys to values and decays from position to position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.cache import Carry
from tgen.executors.torch.mixers.recurrent import CHUNK, Recurrent, Window
from tgen.executors.torch.norms import normalised
from tgen.spec.recurrent import GatedDeltaSpec

LENGTH_EPS = 1e-6  # added to the squared length of queries and keys


class GatedDelta(Recurrent):
    """Linear attention that corrects its state by the difference between a value and what the state returns for its key."""

    def __init__(self, spec: GatedDeltaSpec, width: int) -> None:
        super().__init__(spec, width)
        self.spec = spec
        channels = 2 * spec.keys + spec.values
        self.projection = nn.Linear(width, channels, bias=False)
        self.gate = nn.Linear(width, spec.values, bias=False)
        self.a = nn.Linear(width, spec.value_heads, bias=False)
        self.b = nn.Linear(width, spec.value_heads, bias=False)
        self.window = Window(spec.window, channels)
        self.step_bias = nn.Parameter(torch.empty(spec.value_heads))
        self.decay = nn.Parameter(torch.empty(spec.value_heads))
        self.norm = nn.Parameter(torch.empty(spec.value_dim))
        self.result = nn.Linear(spec.values, width, bias=False)

    def project(self, x: Tensor) -> Tensor:
        """The channels of the window, the gates, and two numbers for each value head, side by side."""
        return torch.cat((self.projection(x), self.gate(x), self.a(x), self.b(x)), dim=-1)

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`."""
        spec = self.spec
        channels, gate, a, b = given.split_with_sizes(
            (2 * spec.keys + spec.values, spec.values, spec.value_heads, spec.value_heads), dim=-1
        )
        mixed, window = self.window(channels, carry[0])
        q, k, v = F.silu(mixed).float().split_with_sizes((spec.keys, spec.keys, spec.values), dim=-1)
        q, k = (self._of_heads(part) for part in (q, k))
        v = v.reshape(*v.shape[:2], spec.value_heads, spec.value_dim).transpose(1, 2)
        decay = -self.decay.float().exp() * F.softplus(a.float() + self.step_bias.float())
        decay, learning = (one.transpose(1, 2).unsqueeze(-1) for one in (decay, b.float().sigmoid()))
        state, results = carry[1], []
        for start in range(0, given.shape[1], CHUNK):
            place = slice(start, start + CHUNK)
            result, state = chunk(q[:, :, place], k[:, :, place], v[:, :, place], decay[:, :, place], learning[:, :, place], state)
            results.append(result)
        result = normalised(torch.cat(results, dim=2), spec.norm_eps) * self.norm.float()
        result = result.transpose(1, 2).flatten(2) * F.silu(gate.float())
        return result.to(given.dtype), (window, state)

    def _of_heads(self, part: Tensor) -> Tensor:
        """Queries or keys scaled to length 1, for each value head: [batch, value_heads, n, key_dim]."""
        heads = part.reshape(*part.shape[:2], self.spec.key_heads, self.spec.key_dim).transpose(1, 2)
        heads = heads * torch.rsqrt(heads.pow(2).sum(-1, keepdim=True) + LENGTH_EPS)
        return heads.repeat_interleave(self.spec.value_heads // self.spec.key_heads, dim=1)


def chunk(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, learning: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The results of n positions computed together, and the state after them (arXiv:2412.06464, section 3.3).

    q and k are [batch, heads, n, key_dim], v [batch, heads, n, value_dim], decay and learning [batch, heads, n, 1], all in float32; decay
    is the logarithm of a factor. Each position adds its key times a correction to the state. A correction depends on those before it, so
    they are the solution of a triangular system.
    """
    total = decay.cumsum(dim=2)
    # The first `tril` keeps `exp` from overflowing where the other position comes later, the second one removes these entries.
    between = (total - total.transpose(2, 3)).tril().exp().tril()
    wanted = learning * (v - total.exp() * (k @ state))
    system = (learning * between * (k @ k.transpose(2, 3))).tril(-1)
    corrections = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    result = (q * total.exp()) @ state + (between * (q @ k.transpose(2, 3))) @ corrections
    last = total[:, :, -1:]
    return result * q.shape[-1] ** -0.5, state * last.exp() + (k * (last - total).exp()).transpose(2, 3) @ corrections
