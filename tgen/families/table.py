"""Tables with which a family says where a checkpoint holds each parameter. Knows neither files nor a tensor framework.

A table maps a parameter's name to a `Source`: the checkpoint's name for the tensor, and the steps from that tensor to the parameter.
Steps are data, so that each executor runs them on its own arrays and the shapes are checked before any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters


@dataclass(frozen=True, slots=True)
class Transpose:
    """Exchange rows and columns; a vector stays as it is. GPT-2 stores matrices [inputs, outputs]."""


@dataclass(frozen=True, slots=True)
class Reshape:
    """Give the same numbers another shape, in which -1 stands for the size that remains; `back` is their first shape."""

    shape: tuple[int, ...]
    back: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Take some rows of a fused matrix."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """Take the `index`-th of equal parts along the first axis of a fused matrix."""

    index: int
    of: int


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Take `count` parts from the `index`-th on, of parts that alternate within each head.

    [heads, of, head_dim, ...] -> [heads * count * head_dim, ...]
    """

    index: int
    of: int
    heads: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """Take the `index`-th tensor of a stack along the first axis, which has `of`."""

    index: int
    of: int


@dataclass(frozen=True, slots=True)
class Reorder:
    """Put the rows of each head into another order: the new row j of a head is its old row order[j]. A vector's numbers count as rows."""

    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """Add a number in float32, whatever the tensor is stored in. Gemma stores norm weights as their distance from 1."""

    number: float


Move = Transpose | Reshape | Rows | Part | Member | Interleaved | Reorder
Step = Move | Add
Take = tuple[Step, ...]

TRANSPOSED: Take = (Transpose(),)
PLUS_ONE: Take = (Add(1.0),)
ONE_ROW: Take = (Reshape((-1,), back=(1, -1)),)


def moved(step: Move, tensor: Any) -> Any:
    """A NumPy array or torch tensor after a step; a view if possible.

    Raises ValueError for a tensor that the step does not fit.
    """
    match step:
        case Transpose():
            return tensor.T if tensor.ndim == 2 else tensor
        case Reshape(shape, _):
            return tensor.reshape(shape)
        case Rows(start, stop):
            return tensor[start:stop]
        case Part(index, of):
            return tensor.reshape(of, tensor.shape[0] // of, *tensor.shape[1:])[index]
        case Member(index, of):
            if tensor.shape[0] != of:
                raise ValueError(f"a stack of {tensor.shape[0]}, not of {of}")
            return tensor[index]
        case Interleaved(index, of, heads, count):
            rest = tensor.shape[1:]
            return tensor.reshape(heads, of, tensor.shape[0] // (heads * of), *rest)[:, index : index + count].reshape(-1, *rest)
        case Reorder(order):
            rest = tensor.shape[1:]
            return tensor.reshape(-1, len(order), *rest)[:, list(order)].reshape(tensor.shape)


def paired(dim: int, head_dim: int) -> Take:
    """The step from heads whose rotated pairs are neighbours, (0, 1), (2, 3) ... up to `dim`, to pairs (i, i + dim/2)."""
    return (Reorder((*range(0, dim, 2), *range(1, dim, 2), *range(dim, head_dim))),)


def inverse(take: Take) -> Take | None:
    """The steps from a parameter back to the checkpoint's tensor; None where the parameter is only a part of that tensor."""
    steps: list[Step] = []
    for step in reversed(take):
        match step:
            case Transpose():
                steps.append(step)
            case Reshape(shape, back):
                steps.append(Reshape(back, shape))
            case Add(number):
                steps.append(Add(-number))
            case Reorder(order):
                steps.append(Reorder(tuple(order.index(row) for row in range(len(order)))))
            case _:
                return None
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter comes from: a tensor of the checkpoint, and the steps from it to the parameter.

    A checkpoint that lacks the tensor may hold the parameter in the `other` way.
    """

    name: str
    take: Take = ()
    other: Source | None = None

    def inside(self, before: str, after: str) -> Source:
        """This source, with texts added before and after the names of its tensors."""
        other = None if self.other is None else self.other.inside(before, after)
        return Source(f"{before}{self.name}{after}", self.take, other)

    @property
    def ways(self) -> Iterator[Source]:
        """This source and the others, the likeliest first."""
        yield self
        if self.other is not None:
            yield from self.other.ways


@dataclass(frozen=True, slots=True)
class Table:
    """All sources of a family's checkpoint, by parameter name.

    Some checkpoints put one of `prefixes` before every name (`transformer.`) and others leave it out. Tensors whose names end in one of
    `ignored` hold nothing that the model needs. `repeated` maps the name of a copy to that of its original; a checkpoint may hold either
    or both. A parameter in `optional` is zero where the checkpoint lacks it. `older` maps endings of names to their former spelling.
    `renamed` pairs a beginning of names with another that may stand for it. Tensors whose names begin with one of `apart` belong to parts
    of the model that tgen does not run, such as its vision.
    """

    sources: dict[str, Source]
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    repeated: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    older: dict[str, str] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    apart: tuple[str, ...] = ()

    def spellings(self, name: str) -> list[str]:
        """Every name under which a checkpoint may hold the tensor of this name, the likeliest first."""
        names = [name, *(copy for copy, original in self.repeated.items() if original == name)]
        names += [known.removeprefix(prefix) for prefix in self.prefixes for known in names]
        names += [after + known.removeprefix(before) for before, after in self.renamed for known in names if known.startswith(before)]
        return names + [known.removesuffix(new) + old for new, old in self.older.items() for known in names if known.endswith(new)]


Names = dict[str, str | Source]


def make_table(
    spec: ModelSpec,
    modules: Names,
    layers: dict[str, tuple[str, Names]],
    *,
    prefixes: tuple[str, ...] = (),
    ignored: tuple[str, ...] = (),
    repeated: dict[str, str] | None = None,
    optional: tuple[str, ...] = (),
    older: dict[str, str] | None = None,
    renamed: tuple[tuple[str, str], ...] = (),
    apart: tuple[str, ...] = (),
) -> Table:
    """A source for every parameter of the spec, from the checkpoint's names for our modules.

    `modules` names those outside the layers, by module, or by parameter if the checkpoint's name does not end in `.weight` or `.bias`;
    `layers` gives, for each stack, the prefix of a layer's number and the names of the modules, or of parameters, after the number.
    """
    sources = {}
    for parameter in parameters(spec):
        module, kind = parameter.rsplit(".", 1)
        stack, _, inner = module.partition(".layers.")
        if inner:
            prefix, names = layers[stack]
            number, _, name = inner.partition(".")
            whole = f"{name}.{kind}" if name else kind
            found, before, after = (
                (names[whole], f"{prefix}.{number}.", "") if whole in names else (names[name], f"{prefix}.{number}.", f".{kind}")
            )
        elif parameter in modules:
            found, before, after = modules[parameter], "", ""
        else:
            found, before, after = modules[module], "", f".{kind}"
        source = found if isinstance(found, Source) else Source(found)
        sources[parameter] = source.inside(before, after)
    return Table(sources, prefixes, ignored, repeated or {}, optional, older or {}, renamed, apart)
