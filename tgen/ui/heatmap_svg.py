"""Attention maps as an SVG picture."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tgen.ui.heatmap import HeatMap, shown

CELL, LABEL, TITLE, MARGIN = 18, 110, 28, 16
MAPS_ACROSS = 4


def svg(heats: Sequence[HeatMap]) -> str:
    """All maps in a grid, with tokens as labels and each weight as the tooltip of its cell."""
    width = max(LABEL + CELL * len(heat.keys) for heat in heats) + MARGIN
    height = max(TITLE + LABEL + CELL * len(heat.queries) for heat in heats) + MARGIN
    across = min(MAPS_ACROSS, len(heats))
    down = -(-len(heats) // across)
    size = f'width="{across * width}" height="{down * height}" viewBox="0 0 {across * width} {down * height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, heat in enumerate(heats):
        parts.append(f'<g transform="translate({number % across * width} {number // across * height})">')
        parts += _panel(heat)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panel(heat: HeatMap) -> list[str]:
    top = TITLE + LABEL
    largest = float(heat.weights.max(initial=0.0)) or 1.0
    parts = [f'<text x="8" y="18" font-weight="bold">{escape(heat.title)}</text>']
    for column, name in enumerate(heat.keys):
        x = LABEL + CELL * column + CELL * 0.7
        parts.append(f'<text transform="translate({x:.0f} {top - 4}) rotate(-60)">{escape(shown(name))}</text>')
    for row, (name, weights) in enumerate(zip(heat.queries, heat.weights, strict=True)):
        y = top + CELL * row
        parts.append(f'<text x="{LABEL - 4}" y="{y + 13}" text-anchor="end">{escape(shown(name))}</text>')
        for column, weight in enumerate(weights):
            place = f'x="{LABEL + CELL * column}" y="{y}" width="{CELL}" height="{CELL}"'
            paint = f'fill="#1f4e9c" fill-opacity="{weight / largest:.3f}" stroke="#ddd"'
            parts.append(f"<rect {place} {paint}><title>{weight:.4f}</title></rect>")
    return parts
