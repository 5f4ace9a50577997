"""Attention maps as text for a terminal: the more a query looks at a key, the darker the cell.

Block characters of different shades need no colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len, set_cell_size

from tgen.ui.harmless import harmless

Weights = npt.NDArray[np.float32]

SHADES = " ░▒▓█"
LABEL = 14
SMALL, GAP = 16, 2


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How much each query (row) looks at each key (column), [queries, keys], with the labels of both."""

    title: str
    weights: Weights
    queries: Sequence[str]
    keys: Sequence[str]


def draw_map(heat: HeatMap, width: int) -> list[str]:
    """One map, a line for each query. Where the keys do not fit the width, neighbours share a column, which shows their largest weight."""
    names = [set_cell_size(shown(name), min(LABEL, cell_len(shown(name)))) for name in heat.queries]
    digits, label = max(2, len(str(len(names) - 1))), max(map(cell_len, names), default=0)
    room = max(8, width - digits - label - 2)
    shared = -(-len(heat.keys) // room)
    weights = pooled(heat.weights, 1, shared)
    cell = 2 if 2 * weights.shape[1] <= room else 1
    largest = float(heat.weights.max(initial=0.0)) or 1.0
    lines = [heat.title, " " * (digits + label + 2) + _ruler(weights.shape[1], cell, shared)]
    for number, (name, row) in enumerate(zip(names, weights, strict=True)):
        lines.append(f"{number:>{digits}} {set_cell_size(name, label)} " + "".join(shade(value / largest) * cell for value in row))
    sharing = f"; each column is the largest of {shared}" if shared > 1 else ""
    lines.append(f"{SHADES[-1]} is {largest:.2f}{sharing}")
    if list(heat.keys) != list(heat.queries):
        lines += _wrapped("keys: " + "  ".join(f"{number} {shown(name)}" for number, name in enumerate(heat.keys)), width)
    return lines


def draw_small(heats: Sequence[HeatMap], width: int) -> list[str]:
    """Several maps side by side, each shrunk to a thumbnail, so that a person can see which one to look at."""
    across = max(1, (width + GAP) // (SMALL + GAP))
    lines: list[str] = []
    for first in range(0, len(heats), across):
        row = heats[first : first + across]
        lines.append((" " * GAP).join(f"{heat.title[:SMALL]:<{SMALL}}" for heat in row).rstrip())
        small = [thumbnail(heat.weights) for heat in row]
        for line in range(max(len(one) for one in small)):
            parts = ["".join(map(shade, one[line])) if line < len(one) else "" for one in small]
            lines.append((" " * GAP).join(f"{part:<{SMALL}}" for part in parts).rstrip())
        lines.append("")
    return [*lines, f"{SHADES[-1]} is the largest weight of each map"]


def thumbnail(weights: Weights) -> Weights:
    """A map of at most SMALL columns and half as many rows, because characters are twice as high as wide; 1 is its largest weight."""
    small = pooled(weights, -(-weights.shape[0] // (SMALL // 2)), -(-weights.shape[1] // SMALL))
    result: Weights = small / (small.max(initial=0.0) or 1.0)
    return result


def pooled(weights: Weights, rows: int, columns: int) -> Weights:
    """The largest weight of each block of this many rows and columns."""
    if rows == columns == 1:
        return weights
    height, width = -(-weights.shape[0] // rows), -(-weights.shape[1] // columns)
    padded = np.zeros((height * rows, width * columns), dtype=weights.dtype)
    padded[: weights.shape[0], : weights.shape[1]] = weights
    result: Weights = padded.reshape(height, rows, width, columns).max(axis=(1, 3))
    return result


def shade(share: float) -> str:
    """The character for a weight between 0 and 1; only a weight of nearly 0 is blank."""
    return SHADES[min(len(SHADES) - 1, int(np.ceil(share * (len(SHADES) - 1) - 0.15)))] if share > 0.01 else SHADES[0]


def shown(piece: str) -> str:
    """A token as a label: visible, on one line."""
    return harmless(piece.replace("\n", "↵").replace("\t", "⇥")) or "∅"


def _ruler(columns: int, cell: int, shared: int) -> str:
    """The numbers of the keys above their columns: every number where there is room, else one at every tenth character."""
    if cell == 2 and (columns - 1) * shared < 10:
        return "".join(f"{column * shared:>2}" for column in range(columns))
    numbers = [(column * cell, str(column * shared)) for column in range(0, columns, 10 // cell)]
    return "".join(f"{number:<10}" for place, number in numbers if place + len(number) <= columns * cell).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, subsequent_indent="      ")
