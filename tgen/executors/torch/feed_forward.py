"""The feed-forward part of a layer: one for all tokens, or a mixture of experts of which each token takes a few."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.spec.records import Activation, ExpertsSpec, FeedForward, MlpSpec, RouterSpec


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
        case "relu2":
            return F.relu(x).square()
        case "xielu":
            raise ValueError("this activation has parameters, which an `Mlp` holds")


class Mlp(nn.Module):
    """The feed-forward part of a layer. It works on each position alone, with a wider inner vector."""

    def __init__(self, spec: MlpSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.gate = nn.Linear(width, spec.width, bias=spec.bias) if spec.gated else None
        self.up = nn.Linear(width, spec.width, bias=spec.bias)
        self.down = nn.Linear(spec.width, width, bias=spec.bias)
        if spec.activation == "xielu":
            self.alpha_p, self.alpha_n, self.beta = (nn.Parameter(torch.empty(1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """x is [..., width], and so is the result."""
        if self.gate is None:
            inner = self._activate(self.up(x))
        elif self.spec.clamp is None:
            inner = self._activate(self.gate(x)) * self.up(x)
        else:
            alpha, limit = self.spec.clamp.alpha, self.spec.clamp.limit
            gate = self.gate(x).clamp(max=limit)
            inner = (self.up(x).clamp(-limit, limit) + 1) * (gate * torch.sigmoid(gate * alpha))
        return self.down(inner)  # type: ignore[no-any-return]

    def _activate(self, x: Tensor) -> Tensor:
        if self.spec.activation != "xielu":
            return activate(x, self.spec.activation)
        rising = F.softplus(self.alpha_p) * x * x
        falling = (torch.expm1(x.clamp(max=-1e-6)) - x) * (self.beta + F.softplus(self.alpha_n))
        return torch.where(x > 0, rising, falling) + self.beta * x


class Experts(nn.Module):
    """A mixture of experts. Only the experts that some token takes are computed, each for its tokens together.

    The router stays in float32 whatever the model's number format: a rounded score can choose another expert.
    """

    def __init__(self, spec: ExpertsSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.router = nn.Linear(width, spec.router.experts, bias=spec.router.bias)
        self.correction = nn.Parameter(torch.zeros(spec.router.experts)) if spec.router.correction else None
        self.experts = nn.ModuleList(Mlp(spec.expert, width) for _ in range(spec.router.experts))
        self.shared = Mlp(spec.shared, width) if spec.shared else None
        self.shared_gate = nn.Linear(width, 1, bias=False) if spec.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        """x is [..., width], and so is the result, whose sum is rounded once."""
        flat = x.flatten(0, -2)
        chosen, weights = choose(self.router(flat.float()), self.correction, self.spec.router)
        total = torch.zeros_like(flat, dtype=torch.float32)
        for number in sorted(set(chosen.flatten().tolist())):
            tokens, places = torch.where(chosen == number)
            total.index_add_(0, tokens, self.experts[number](flat[tokens]).float() * weights[tokens, places, None])
        if self.shared is not None:
            gate = 1.0 if self.shared_gate is None else torch.sigmoid(self.shared_gate(flat).float())
            total += self.shared(flat).float() * gate
        return total.to(x.dtype).reshape(x.shape)


def choose(logits: Tensor, correction: Tensor | None, spec: RouterSpec) -> tuple[Tensor, Tensor]:
    """The numbers of each token's experts and their weights, [tokens, chosen] both, from the router's logits [tokens, experts]."""
    if spec.scores == "sparsemixer":
        return _mix(logits, spec)
    scores = logits.softmax(-1) if spec.scores == "softmax" else logits.sigmoid()
    wanted = scores if correction is None else scores + correction
    if spec.groups > 1:
        grouped = wanted.reshape(len(wanted), spec.groups, -1)
        best = grouped.topk(spec.group_best, dim=-1).values.sum(-1).topk(spec.kept_groups, dim=-1).indices
        kept = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, True)
        wanted = grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(-2)
    chosen = wanted.topk(spec.chosen, dim=-1).indices
    weights = scores.gather(-1, chosen)
    if spec.normalised:
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)
    return chosen, weights * spec.scale


def _mix(logits: Tensor, spec: RouterSpec) -> tuple[Tensor, Tensor]:
    """The choice of SparseMixer, one expert after the other."""
    chosen, weights, left = [], [], logits
    for _ in range(spec.chosen):
        top, index = left.max(-1, keepdim=True)
        far = (top - logits) / logits.abs().clamp(min=top) > 2 * spec.jitter
        weights.append(left.masked_fill(far, -torch.inf).softmax(-1).gather(-1, index))
        chosen.append(index)
        left = left.scatter(-1, index, -torch.inf)
    return torch.cat(chosen, -1), torch.cat(weights, -1)


def make_feed_forward(spec: FeedForward, width: int) -> Mlp | Experts:
    """The module for a spec."""
    match spec:
        case MlpSpec():
            return Mlp(spec, width)
        case ExpertsSpec():
            return Experts(spec, width)
