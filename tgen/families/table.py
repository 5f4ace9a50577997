"""How a family says where each parameter is found in a checkpoint. Knows neither files nor a tensor framework.

A table maps a parameter's name to a `Source`: the checkpoint's name for the tensor and what to take of it. The operations use only
what NumPy arrays and torch tensors have in common, so one table serves every executor and the check that runs before any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tgen.spec.records import ModelSpec
from tgen.spec.shapes import parameters

Take = Callable[[Any], Any]


def whole(tensor: Any) -> Any:
    """The tensor as it is."""
    return tensor


def transposed(tensor: Any) -> Any:
    """Rows and columns exchanged: GPT-2 stores matrices [inputs, outputs]."""
    return tensor.T if tensor.ndim == 2 else tensor


def plus_one(tensor: Any) -> Any:
    """Gemma stores norm weights as their distance from 1; the sum is taken in float32."""
    return (tensor.float() if hasattr(tensor, "float") else tensor.astype(np.float32)) + 1


def flat(tensor: Any) -> Any:
    """[1, n] -> [n]"""
    return tensor.reshape(-1)


def one_row(tensor: Any) -> Any:
    """[n] -> [1, n]"""
    return tensor.reshape(1, -1)


def rows(start: int, stop: int) -> Take:
    """Some rows of a fused matrix."""
    return lambda tensor: tensor[start:stop]


def part(index: int, of: int, then: Take = whole) -> Take:
    """The index-th of equal parts along the first axis, after `then` was applied: fused matrices taken apart."""

    def take(tensor: Any) -> Any:
        tensor = then(tensor)
        size = tensor.shape[0] // of
        return tensor[index * size : (index + 1) * size]

    return take


def interleaved(index: int, of: int, heads: int) -> Take:
    """The index-th of parts that alternate within each head: [heads, of, head_dim, ...] -> [heads * head_dim, ...]."""

    def take(tensor: Any) -> Any:
        head_dim = tensor.shape[0] // (heads * of)
        split = tensor.reshape(heads, of, head_dim, *tensor.shape[1:])[:, index]
        return split.reshape(heads * head_dim, *tensor.shape[1:])

    return take


@dataclass(frozen=True, slots=True)
class Source:
    """Where a parameter comes from: a tensor of the checkpoint, and the part of it to take.

    `put` is the way back, for families that are trained here.
    """

    name: str
    take: Take = whole
    put: Take | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """All sources of a family's checkpoint, by parameter name.

    `prefixes` are what some checkpoints put before every name (`transformer.`) and others leave out; `ignored` are endings of names that
    hold nothing the model needs; `repeated` are names that may hold another tensor once more, or in its place; `optional` are
    parameters that are zero where the checkpoint lacks them; `older` are endings of names and how they were once spelt.
    """

    sources: dict[str, Source]
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    repeated: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    older: dict[str, str] = field(default_factory=dict)

    def spellings(self, name: str) -> list[str]:
        """Every name under which a checkpoint may hold the tensor of this name, the likeliest first."""
        names = [name, *(copy for copy, original in self.repeated.items() if original == name)]
        names += [known.removeprefix(prefix) for prefix in self.prefixes for known in names]
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
) -> Table:
    """A source for every parameter of the spec, from the checkpoint's names for our modules.

    `modules` names those outside the layers, by module or by parameter where the checkpoint has no `.weight` or `.bias` at its end;
    `layers` gives, for each stack, what stands before a layer's number and the names of the modules after it.
    """
    sources = {}
    for parameter in parameters(spec):
        module, kind = parameter.rsplit(".", 1)
        stack, _, inner = module.partition(".layers.")
        if inner:
            prefix, names = layers[stack]
            number, _, name = inner.partition(".")
            found, before, after = names[name], f"{prefix}.{number}.", f".{kind}"
        elif parameter in modules:
            found, before, after = modules[parameter], "", ""
        else:
            found, before, after = modules[module], "", f".{kind}"
        source = found if isinstance(found, Source) else Source(found, put=whole)
        sources[parameter] = Source(f"{before}{source.name}{after}", source.take, source.put)
    return Table(sources, prefixes, ignored, repeated or {}, optional, older or {})
