"""State space models: with a state for each channel (Mamba, arXiv:2312.00752) or for each head (Mamba 2, arXiv:2405.21060)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.cache import Carry
from tgen.executors.torch.mixers.recurrent import CHUNK, Recurrent, Window
from tgen.executors.torch.norms import normalised
from tgen.spec.recurrent import SelectiveSpec, StateSpaceSpec


class Selective(Recurrent):
    """The state space of Mamba. Each channel has its own decays, so the positions are computed one after the other."""

    def __init__(self, spec: SelectiveSpec, width: int) -> None:
        super().__init__(spec, width)
        self.spec = spec
        self.projection = nn.Linear(width, 2 * spec.inner, bias=spec.bias)
        self.window = Window(spec.window, spec.inner)
        self.select = nn.Linear(spec.inner, spec.rank + 2 * spec.state, bias=False)
        self.step = nn.Linear(spec.rank, spec.inner)
        self.decay = nn.Parameter(torch.empty(spec.inner, spec.state))
        self.skip = nn.Parameter(torch.empty(spec.inner))
        self.result = nn.Linear(spec.inner, width, bias=spec.bias)

    def project(self, x: Tensor) -> Tensor:
        """Channels and gates side by side."""
        return self.projection(x)  # type: ignore[no-any-return]

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`."""
        channels, gate = given.chunk(2, dim=-1)
        mixed, window = self.window(channels, carry[0])
        mixed = F.silu(mixed)
        parts = self.select(mixed).split_with_sizes((self.spec.rank, self.spec.state, self.spec.state), dim=-1)
        if self.spec.norm_eps is not None:
            parts = tuple(normalised(part, self.spec.norm_eps).to(part.dtype) for part in parts)
        step, b, c = F.softplus(self.step(parts[0]).float()), parts[1].float(), parts[2].float()
        x, decay, state, results = mixed.float(), -self.decay.float().exp(), carry[1], []
        for place in range(given.shape[1]):
            kept = (step[:, place, :, None] * decay).exp() * state
            state = kept + (step[:, place] * x[:, place]).unsqueeze(-1) * b[:, place, None]
            results.append(state @ c[:, place, :, None])
        result = (torch.cat(results, dim=-1).transpose(1, 2) + self.skip.float() * x) * F.silu(gate.float())
        return result.to(given.dtype), (window, state)


class StateSpace(Recurrent):
    """The state space of Mamba 2. All numbers of a head have one decay, so many positions can be computed together."""

    def __init__(self, spec: StateSpaceSpec, width: int) -> None:
        super().__init__(spec, width)
        self.spec = spec
        self.projection = nn.Linear(width, spec.inner + spec.channels + spec.heads, bias=spec.bias)
        self.window = Window(spec.window, spec.channels)
        self.step_bias = nn.Parameter(torch.empty(spec.heads))
        self.decay = nn.Parameter(torch.empty(spec.heads))
        self.skip = nn.Parameter(torch.empty(spec.heads))
        self.norm = None if spec.norm_eps is None else nn.Parameter(torch.empty(spec.inner))
        self.result = nn.Linear(spec.inner, width, bias=spec.out_bias)

    def project(self, x: Tensor) -> Tensor:
        """Gates, channels of the window and steps side by side."""
        return self.projection(x)  # type: ignore[no-any-return]

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`."""
        spec = self.spec
        if spec.scales is not None:
            vectors = spec.groups * spec.state
            parts = given.split_with_sizes((spec.inner, spec.inner, vectors, vectors, spec.heads), dim=-1)
            given = torch.cat([part * scale for part, scale in zip(parts, spec.scales, strict=True)], dim=-1)
        gate, channels, step = given.split_with_sizes((spec.inner, spec.channels, spec.heads), dim=-1)
        mixed, window = self.window(channels, carry[0])
        x, b, c = F.silu(mixed).split_with_sizes((spec.inner, spec.groups * spec.state, spec.groups * spec.state), dim=-1)
        x = x.float().reshape(*x.shape[:2], spec.heads, spec.head_dim).transpose(1, 2)
        b, c = (self._of_heads(part) for part in (b, c))
        step = F.softplus(step.float() + self.step_bias.float()).clamp(*spec.steps).transpose(1, 2).unsqueeze(-1)
        decay = -self.decay.float().exp()[:, None, None] * step
        state, results = carry[1], []
        for start in range(0, given.shape[1], CHUNK):
            place = slice(start, start + CHUNK)
            result, state = chunk(x[:, :, place] * step[:, :, place], b[:, :, place], c[:, :, place], decay[:, :, place], state)
            results.append(result)
        result = torch.cat(results, dim=2) + self.skip.float()[:, None, None] * x
        return self._gated(result.transpose(1, 2).flatten(2), gate.float()).to(given.dtype), (window, state)

    def _of_heads(self, part: Tensor) -> Tensor:
        """The vector of each group, repeated for each of the group's heads: [batch, heads, n, state]."""
        grouped = part.float().reshape(*part.shape[:2], self.spec.groups, self.spec.state).transpose(1, 2)
        return grouped.repeat_interleave(self.spec.heads // self.spec.groups, dim=1)

    def _gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """x [batch, n, inner] times the gate, with a norm before or after that if the spec has one."""
        spec, gate = self.spec, F.silu(gate)
        if self.norm is None or spec.norm_eps is None:
            return x * gate
        x = x if spec.gate_last else x * gate
        x = normalised(x.reshape(*x.shape[:2], spec.norm_groups, -1), spec.norm_eps).flatten(-2) * self.norm.float()
        return x * gate if spec.gate_last else x


def chunk(x: Tensor, b: Tensor, c: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The results of n positions computed together, and the state s after them: s = exp(decay) * s + x b^T, and the result is s c.

    x is [batch, heads, n, head_dim], b and c [batch, heads, n, state], decay [batch, heads, n, 1], all in float32.
    """
    total = decay.cumsum(dim=2)
    # The first `tril` keeps `exp` from overflowing where the other position comes later, the second one removes these entries.
    between = (total - total.transpose(2, 3)).tril()
    weights = (c @ b.transpose(2, 3)) * between.exp().tril()
    result = weights @ x + (c @ state.transpose(2, 3)) * total.exp()
    last = total[:, :, -1:]
    return result, state * last.exp() + (x * (last - total).exp()).transpose(2, 3) @ b
