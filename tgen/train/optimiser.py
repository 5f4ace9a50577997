"""First weights, optimiser and learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn


def learning_rate(peak: float, share: float, warmup: float) -> float:
    """The rate after `share` (0 to 1) of the run: a straight rise to `peak`, then a straight fall to zero (arXiv:2502.15938)."""
    if share < warmup:
        return peak * max(share / warmup, 1e-3)
    return peak * max(1 - share, 0.0) / (1 - warmup)


def make_optimiser(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) in one fused step. Only matrices decay: norms and biases do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)


def initialise(model: nn.Module, layers: int, seed: int) -> None:
    """Normal weights of deviation 0.02, or 0.02 / sqrt(2 * layers) where a matrix adds to the residual stream, as in GPT-2. Zero biases."""
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
