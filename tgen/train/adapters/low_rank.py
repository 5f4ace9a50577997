"""Low-rank changes of a frozen model's matrices (LoRA, arXiv:2106.09685), one for each matrix of the checkpoint.

A checkpoint may fuse matrices that are separate in the model, such as queries, keys and values. Then these share one change, as in peft.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgen.checkpoint.container import Checkpoint
from tgen.errors import UnsupportedError
from tgen.executors.torch.attention import Attention
from tgen.executors.torch.layers import Experts, Mlp
from tgen.executors.torch.transformer import Transformer
from tgen.families.registry import find_family
from tgen.families.table import TRANSPOSED, Interleaved, Part, Reorder, Rows, Table, Take, moved

CHANGED = re.compile(r"decoder\.layers\.\d+\.(mixer|feed_forward)\.\w+\.weight")


class Change(nn.Module):
    """The change of one matrix of the checkpoint: the product of `up` [outputs, rank] and `down` [rank, inputs], which is zero at first."""

    def __init__(self, outputs: int, inputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))


class ChangedLinear(nn.Module):
    """A matrix of the model, and its rows of a change."""

    def __init__(self, linear: nn.Linear, change: Change, rows: Take, scale: float) -> None:
        super().__init__()
        self.linear, self.change, self.rows, self.scale = linear, change, rows, scale

    def forward(self, x: Tensor) -> Tensor:
        """x is [..., inputs], the result [..., outputs]."""
        up = self.change.up
        for step in self.rows:
            up = moved(step, up)  # type: ignore[arg-type]
        inner = F.linear(x, self.change.down.to(x.dtype))
        return self.linear(x) + F.linear(inner, up.to(x.dtype)) * self.scale  # type: ignore[no-any-return]


class Changes(nn.Module):
    """All changes of a model, by the names that transformers gives to the changed modules."""

    def __init__(self, modules: dict[str, Change]) -> None:
        super().__init__()
        self.names = list(modules)
        self.parts = nn.ModuleList(modules.values())

    @property
    def size(self) -> int:
        """The number of parameters that learn."""
        return sum(parameter.numel() for parameter in self.parameters())

    def named(self) -> Iterator[tuple[str, Change]]:
        """Each module's name and its change."""
        for name, part in zip(self.names, self.parts, strict=True):
            assert isinstance(part, Change)
            yield name, part


@dataclass(frozen=True, slots=True)
class Place:
    """A matrix of the model: its path, the checkpoint's module that holds it, that module's outputs and inputs, and the matrix's rows.

    The checkpoint stores a matrix that is `turned` as [inputs, outputs].
    """

    path: str
    module: str
    shape: tuple[int, int]
    rows: Take
    turned: bool


def places(checkpoint: Checkpoint, model: Transformer) -> list[Place]:
    """Every matrix that an adapter changes: those of attention and, except in mixtures of experts, those of feed-forward parts.

    transformers fuses the matrices of experts, and peft would then change other modules that have their names. Raises UnsupportedError for
    a model that has no such matrix.
    """
    table, found = find_family(checkpoint.model_type).tensors(checkpoint.spec), []
    changed = Attention if any(isinstance(module, Experts) for module in model.modules()) else (Attention, Mlp)
    for parameter, match in checkpoint.matches.parameters.items():
        source = table.sources[parameter]
        path, turned = parameter.removesuffix(".weight"), source.take[:1] == TRANSPOSED
        rows = source.take[1:] if turned else source.take
        if not CHANGED.fullmatch(parameter) or not all(isinstance(step, Interleaved | Part | Reorder | Rows) for step in rows):
            continue
        inside = model.get_submodule(path.rpartition(".")[0])
        if isinstance(inside, changed) and type(model.get_submodule(path)) is nn.Linear:
            outputs, inputs = match.tensor.shape if match.tensor.is_upright or not turned else match.tensor.shape[::-1]
            found.append(Place(path, _module(table, source.name), (outputs, inputs), rows, turned))
    if not found:
        raise UnsupportedError(f"{checkpoint.name} has no matrix that an adapter can change", "name another model with --base")
    return found


def others(checkpoint: Checkpoint, changed: list[Place]) -> list[str]:
    """The names of the modules that hold the checkpoint's other matrices."""
    table, own = find_family(checkpoint.model_type).tensors(checkpoint.spec), {place.module for place in changed}
    matrices = (table.sources[name].name for name, match in checkpoint.matches.parameters.items() if len(match.tensor.shape) > 1)
    return [module for name in matrices if (module := _module(table, name)) not in own]


def put_changes(model: Transformer, at: list[Place], rank: int, alpha: float, seed: int) -> Changes:
    """Make the model compute with a new change of each matrix, and return the changes, whose parameters are the only ones that learn."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, Change] = {}
    for place in at:
        if place.module not in changes:
            changes[place.module] = Change(*place.shape, rank, generator).to(model.device)
        linear = model.get_submodule(place.path)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(place.path, ChangedLinear(linear, changes[place.module], place.rows, alpha / rank))
    return Changes(changes)


def _module(table: Table, name: str) -> str:
    """The name in transformers of the module with a tensor of the checkpoint.

    A model that sees images has its text model inside another module.
    """
    before, after = table.renamed[0] if table.renamed else ("", "")
    return (after + name.removeprefix(before) if name.startswith(before) else name).removesuffix(".weight")
