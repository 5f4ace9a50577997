"""Makes the initial weights, the optimiser and the learning rate of a run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tgen.train.optimisers.muon import Muon


def learning_rate(peak: float, share: float, warmup: float) -> float:
    """The rate after `share` (0 to 1) of the run: a straight rise to `peak`, then a straight fall to zero (arXiv:2502.15938)."""
    if share < warmup:
        return peak * max(share / warmup, 1e-3)
    return peak * max(1 - share, 0.0) / (1 - warmup)


class Optimisers:
    """Several optimisers as one, each for its own parameters."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; the trainer sets their learning rates."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Raises ValueError for the state of other optimisers."""
        if not isinstance(states, list):
            raise ValueError("these are not states of several optimisers")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def make_optimiser(model: nn.Module, weight_decay: float, dtype: torch.dtype = torch.float32) -> Optimisers:
    """Muon for the matrices of the layers, AdamW (arXiv:1711.05101) in one fused step for all other parameters.

    Norms and biases have no weight decay. `dtype` is the number format in which Muon multiplies.
    """
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (vectors if parameter.ndim < 2 else inner if parameter.ndim == 2 and ".layers." in name else outer).append(parameter)
    groups = [{"params": outer, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)
    return Optimisers(adam, Muon(inner, weight_decay, dtype)) if inner else Optimisers(adam)


def initialise(model: nn.Module, layers: int, seed: int) -> None:
    """Set the initial weights: zero for biases, else normal with deviation 0.02, or 0.02 / sqrt(2 * layers) for matrices whose result is
    added to the residual stream, as in GPT-2. Weights of norms stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            continue
        residual = name.endswith(("mixer.out.weight", "feed_forward.down.weight"))
        deviation = 0.02 / math.sqrt(2 * layers) if residual else 0.02
        with torch.no_grad():
            parameter.normal_(0.0, deviation, generator=generator)
