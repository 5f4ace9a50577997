"""Makes the files for people that lie beside the weights: the model card and the picture of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tgen.train.settings import HEAD_DIM, TrainSettings

CARD = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags: [{model_type}, tgen]
---
# {name}

A small {kind} model in {layout} layout, trained with `tgen train`.

| | |
|---|---|
| layers, heads, width | {layers}, {heads}, {width} |
| vocabulary | {vocab} (byte-level BPE) |
| context | {context} tokens |
| text | {text}, {characters:,} characters; measured on {held_back:,} characters that were held back |
| trained on | {tokens:,} tokens in {steps:,} steps, {minutes:.0f} minutes |
| optimiser | Muon in the layers, AdamW elsewhere; learning rate {learning_rate:g}, then straight to zero; weight decay {weight_decay:g} |
| loss at the end | {train_loss:.3f} nats a token in training, {bits_per_byte:.3f} bits per byte on held-back text |

```
{command}
```
"""


def model_card(
    name: str, settings: TrainSettings, config: dict[str, Any], sizes: dict[str, int], history: list[dict[str, float]], command: str
) -> str:
    """Markdown for the folder's README.md. `history` holds at least one evaluation; `command` is an example of how to use the model."""
    pairs = config["model_type"] == "marian"
    last = history[-1]
    return CARD.format(
        name=name,
        model_type=config["model_type"],
        pipeline="translation" if pairs else "text-generation",
        kind="encoder-decoder" if pairs else "decoder-only",
        layout="Marian" if pairs else "Llama",
        layers=f"{settings.layers} + {settings.layers}" if pairs else settings.layers,
        heads=settings.width // HEAD_DIM,
        width=settings.width,
        vocab=config["vocab_size"],
        context=settings.context,
        text=f"{sizes['pairs']:,} sentence pairs" if pairs else f"{sizes['documents']:,} documents",
        characters=sizes["characters"],
        held_back=sizes.get("held_back", round(settings.validation * sizes["characters"])),  # a run may have begun before this was counted
        tokens=int(last["tokens"]),
        steps=int(last["step"]),
        minutes=last["seconds"] / 60,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        train_loss=last["train_loss"],
        bits_per_byte=last["bits_per_byte"],
        command=command,
    )


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 360, 60, 40, 50
STEPS = (1, 2, 5)


def curve(history: Sequence[dict[str, float]]) -> str:
    """An SVG of held-back bits per byte over tokens seen: a point for each evaluation, of which there is at least one."""
    tokens = [row["tokens"] for row in history]
    values = [row["bits_per_byte"] for row in history]
    title = f"held-back text: {values[-1]:.3f} bits per byte after {tokens[-1] / 1e6:.1f} M tokens"
    low, high = min(values), max(values)
    span = max(high - low, 0.02)
    low, high = low - 0.1 * span, high + 0.1 * span
    most = max(*tokens, 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / most * (WIDTH - LEFT - 20)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="14">{title}</text>',
    ]
    for value in ticks(low, high):
        _, y = place(0, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(0, most / 1e6):
        x, _ = place(value * 1e6, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">million tokens</text>')
    points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(tokens, values, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#1f4e9c" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>\n"])


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers from `low` to `high`, for an axis."""
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * factor for factor in STEPS if unit * factor >= rough), 10 * unit)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
