"""The base of all mixers that carry a state from each position to the next, and keep no keys and values of all positions.

Such a mixer first projects each position by itself (`project`), then goes through the positions in order (`scan`), and ends with a matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.executors.torch.cache import Carry, Recurrence
from tgen.executors.torch.forward_pass import ForwardPass
from tgen.spec.recurrent import RecurrentSpec, WindowSpec

# The positions that a scan computes at once, as attention among them. Only the state leads from one such chunk to the next.
CHUNK = 64


class Window(nn.Module):
    """A causal convolution: for each channel, a weighted sum of its last few positions."""

    def __init__(self, spec: WindowSpec, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, spec.size))
        self.bias = nn.Parameter(torch.empty(channels)) if spec.bias else None

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The sums for x [batch, n, channels], and the last size - 1 positions, which the next call takes as `before`."""
        whole = torch.cat((before.to(x.dtype), x), dim=1)
        sums = F.conv1d(whole.transpose(1, 2), self.weight.unsqueeze(1), self.bias, groups=len(self.weight))
        return sums.transpose(1, 2), whole[:, x.shape[1] :].float()


class Recurrent(nn.Module):
    """A mixer whose cache is the state that it carries, in float32 whatever the model's number format."""

    result: nn.Module

    def __init__(self, spec: RecurrentSpec, width: int) -> None:
        super().__init__()
        self.shapes = spec.carries(width)

    def project(self, x: Tensor) -> Tensor:
        """The scan's input [batch, n, ...] for x [batch, n, width]."""
        raise NotImplementedError

    def scan(self, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The result [batch, n, ...] before the last matrix, for n positions that follow those of the carry, and the carry after them."""
        raise NotImplementedError

    def empty(self, batch: int, device: torch.device) -> Carry:
        """The carry before the first position."""
        return tuple(torch.zeros(1, device=device).expand(batch, *shape) for shape in self.shapes)

    def make_cache(self, device: torch.device, dtype: torch.dtype) -> Recurrence:  # noqa: ARG002
        """The cache of a row that has read nothing."""
        return Recurrence(self.empty(1, device), self.scan)

    def forward(self, x: Tensor, this: ForwardPass, layer: int) -> Tensor:
        """x and the result are [batch, n, width]. If the pass has rows, their caches take the states."""
        given = self.project(x.to(this.dtype))
        if this.counts is None:
            return self.result(self._whole(given, this.positions))  # type: ignore[no-any-return]
        mixed = []
        for part, one in zip(this.parts, given.split_with_sizes(this.counts, dim=1), strict=True):
            row = part.row
            mixed.append(self._alone(one) if row is None else row.recurrence(layer).read(row.length, one))
        return self.result(torch.cat(mixed, dim=1))  # type: ignore[no-any-return]

    def _whole(self, given: Tensor, positions: Tensor) -> Tensor:
        """The result for a batch that is read at once. Padding would change a state, so padded rows are read one by one without it."""
        real = positions >= 0
        if real.all():
            return self._alone(given)
        rows = []
        for one, seen in zip(given, real, strict=True):
            mixed = self._alone(one[seen][None])[0]
            rows.append(mixed.new_zeros(len(seen), *mixed.shape[1:]).index_put((seen,), mixed))
        return torch.stack(rows)

    def _alone(self, given: Tensor) -> Tensor:
        """The result for texts that are read from the start, without a cache."""
        return self.scan(given, self.empty(len(given), given.device))[0]
