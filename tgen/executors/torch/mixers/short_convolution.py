"""A gated convolution over the last few positions (LFM2, arXiv:2511.23404)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgen.executors.torch.cache import Carry
from tgen.executors.torch.mixers.recurrent import Recurrent, Window
from tgen.spec.recurrent import ShortConvolutionSpec


class ShortConvolution(Recurrent):
    """c * window(b * x), where b, c and x are three projections of each position."""

    def __init__(self, spec: ShortConvolutionSpec, width: int) -> None:
        super().__init__(spec, width)
        self.projection = nn.Linear(width, 3 * width, bias=spec.bias)
        self.window = Window(spec.window, width)
        self.result = nn.Linear(width, width, bias=spec.bias)

    def project(self, x: Tensor) -> Tensor:
        """b * x and c side by side."""
        b, c, inner = self.projection(x).chunk(3, dim=-1)
        return torch.cat((b * inner, c), dim=-1)

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As `Recurrent.scan`."""
        inner, c = given.chunk(2, dim=-1)
        mixed, after = self.window(inner, carry[0])
        return c * mixed, (after,)
