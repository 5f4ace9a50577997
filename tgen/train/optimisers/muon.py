"""Muon: momentum whose direction is made orthogonal before each step, for the matrices of the layers.

From Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024), with the step size and the weight decay of
arXiv:2502.16982, by which a learning rate that suits AdamW suits Muon, too. torch's own Muon always multiplies in bfloat16, which a CPU
without such instructions does four times slower than float32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM, ROUNDS = 0.95, 5
# With these coefficients, five rounds bring every singular value near 1; the values need not reach 1.
A, B, C = 3.4445, -4.7750, 2.0315
# An orthogonal step, times this number and the root of the longer side, is about as large as AdamW's usual steps.
SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """The optimiser for matrices. AdamW changes embeddings, heads and vectors."""

    def __init__(self, matrices: Iterable[Tensor], weight_decay: float, dtype: torch.dtype = torch.float32) -> None:
        """`dtype` is the number format of the matrix products in `orthogonalised`."""
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # the trainer has no closure
        """Change every matrix that has a gradient."""
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for shape, matrices in alike.items():
                directions = orthogonalised(torch.stack([self._direction(matrix) for matrix in matrices]), self.dtype)
                size = group["lr"] * SIZE * math.sqrt(max(shape))
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-size)

    def _direction(self, matrix: Tensor) -> Tensor:
        """Nesterov's momentum: the running average of gradients, averaged once more with the present gradient."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        momentum = state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(momentum, MOMENTUM)


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices with the same singular vectors, and singular values near 1 (or less, for tiny ones), by the Newton-Schulz iteration.

    `matrices` and the result are [n, rows, columns].
    """
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = (wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    directions: Tensor = x.to(matrices.dtype)
    return directions.mT if matrices.shape[-2] > matrices.shape[-1] else directions
