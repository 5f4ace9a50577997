"""The course of a run as a picture: held-back bits per byte over tokens seen. Knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 360, 60, 40, 50
STEPS = (1, 2, 5)


def curve(history: Sequence[dict[str, float]]) -> str:
    """An SVG of the evaluations, each with `tokens` and `bits_per_byte`; there is at least one."""
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
    """Some round numbers between two."""
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * factor for factor in STEPS if unit * factor >= rough), 10 * unit)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
