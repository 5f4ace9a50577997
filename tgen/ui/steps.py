"""A step of the sampler as a table of 80 columns that can be read without colour."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len, set_cell_size

from tgen.ui.heatmap import shown

TOKEN = 20
NAMES = {
    "temperature": "temp",
    "top_n_sigma": "n-sigma",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "typical_p": "typical",
    "xtc": "xtc",
    "mirostat": "miro",
    "all": "all",
}


def draw_step(step: dict[str, Any]) -> str:
    """The lines of one step; `step` has the fields of the Step that explaining yields."""
    stages = list(step["left"])
    # The column of scores repeats the logits unless penalties or rules have changed one.
    scored = any(row["score"] != row["logit"] for row in step["candidates"])
    heading = ["logit", "raw", *(["score"] if scored else []), *(NAMES[name] for name in stages)]
    lines = [f"token {step['number'] + 1}: {_quoted(step['text'])}", *_how(step)]
    lines.append(f"  {'candidate':{TOKEN}}" + "".join(f"{name:>8}" for name in heading))
    for row in step["candidates"]:
        lines.append(_line(row, [row["score"]] if scored else [], [row["after"][name] for name in stages]))
    return "\n".join(lines) + "\n"


def _how(step: dict[str, Any]) -> list[str]:
    if step["uniform"] is None:
        return ["  temperature 0: the highest score, nothing is drawn"]
    left = step["left"]
    first, *others = left
    if first == "temperature":  # which keeps all
        ways = [f"of {left[first]}", *(f"{NAMES[name]} leaves {left[name]}" for name in others)]
    else:
        ways = [f"{NAMES[name]} leaves {left[name]}" for name in left if name != "temperature"]
    return [
        f"  {', '.join(ways)}",
        f"  drawn by {step['uniform']:.6f}, in its share {step['low']:.6f} to {step['high']:.6f}",
    ]


def _line(row: dict[str, Any], score: list[float | None], shares: list[float | None]) -> str:
    """A candidate and its numbers, up to the first that is missing: the heading above it names the filter that cut the candidate."""
    text = _quoted(row["text"])
    if cell_len(text) > TOKEN:
        text = set_cell_size(text, TOKEN - 2) + '…"'
    line = f"{'*' if row['drawn'] else ' '} {set_cell_size(text, TOKEN)}{_number(row['logit'], 3)}{_number(row['probability'], 4)}"
    for number, digits in [*((one, 3) for one in score), *((one, 4) for one in shares)]:
        if number is None:
            return f"{line}{'cut':>8}"
        line += _number(number, digits)
    return line


def _number(value: float, digits: int) -> str:
    return f"{value:>8.{digits}f}" if abs(value) < 1000 else f" {value:>7.0e}"


def _quoted(text: str) -> str:
    return f'"{shown(text)}"'
