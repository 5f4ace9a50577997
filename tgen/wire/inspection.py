"""JSON for what shows the inside of a model: attention maps, the pieces of a text, the options that a request may set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tgen.declaration import SAMPLING
from tgen.options import DECLARED, Resolved
from tgen.text.tokenizer import Tokenizer
from tgen.ui.heatmap import HeatMap


def map_record(heat: HeatMap) -> dict[str, Any]:
    """A map: its title, the labels of its rows and columns, and the weights row by row."""
    weights = np.round(heat.weights.astype(np.float64), 6).tolist()
    return {"title": heat.title, "queries": list(heat.queries), "keys": list(heat.keys), "weights": weights}


def piece_records(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Each token of a text: its id, the vocabulary's spelling, its text, and the bytes that it stands for, null if they are unknown."""
    found = []
    for token in ids:
        data = tokenizer.bytes_of(token)
        text = tokenizer.decode([token], special=True) if data is None else data.decode(errors="replace")
        special = tokenizer.written(token) is None
        found.append(
            {"id": token, "piece": tokenizer.piece(token), "text": text, "bytes": None if data is None else list(data), "special": special}
        )
    return found


def option_records(resolved: Resolved) -> list[dict[str, Any]]:
    """The numeric options that a request may set: their declared range and help, and the value that holds if the request sets none."""
    found = []
    for name, option in DECLARED.items():
        if option.number and not option.repeated and (option.panel == SAMPLING or name == "max_new_tokens"):
            limits = {"low": option.low, "high": option.high}
            found.append(
                {
                    "name": name, "help": option.help, "whole": option.metavar == "INT", "neutral": option.neutral, "above": option.above,
                    "value": getattr(resolved.options, name), "origin": resolved.origins[name],
                    **{border: value if abs(value) < float("inf") else None for border, value in limits.items()},
                }
            )  # fmt: skip
    return found
