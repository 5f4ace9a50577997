"""Heat maps as text and as a picture, at any width and for any token."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tgen.ui.heatmap import SHADES, SMALL, HeatMap, draw_map, draw_small, pooled, shade, thumbnail
from tgen.ui.heatmap_svg import svg

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
TOKENS = ["<s>", "a&b", "\x1b[31m", "日本", "", '"', "\n"]


def heat(rows: int, columns: int, title: str = "decoder, layer 0") -> HeatMap:
    weights = np.random.default_rng(rows * 100 + columns).random((rows, columns), dtype=np.float32)
    names = [TOKENS[number % len(TOKENS)] for number in range(max(rows, columns))]
    return HeatMap(title, weights / weights.sum(axis=1, keepdims=True), names[:rows], names[:columns])


def test_a_small_map() -> None:
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.7, 0.05]], dtype=np.float32)
    assert draw_map(HeatMap("title", weights, ["Once", " a", "日"], ["Once", " a", "日"]), 80) == [
        "title",
        "         0 1 2",
        " 0 Once ██    ",
        " 1  a   ▒▒▒▒  ",
        " 2 日   ░░▓▓░░",
        "█ is 1.00",
    ]


def test_keys_of_another_text_are_listed() -> None:
    lines = draw_map(HeatMap("cross", np.full((1, 2), 0.5, dtype=np.float32), ["x"], ["<a>", "\x1b"]), 80)
    assert lines[-1] == "keys: 0 <a>  1 ␛"


@steady
@given(st.integers(1, 30), st.integers(1, 300), st.integers(20, 200))
def test_every_line_fits_the_width_and_every_weight_is_in_one_column(rows: int, columns: int, width: int) -> None:
    one = heat(rows, columns)
    title, ruler, *lines = draw_map(one, width)[: rows + 2]
    assert title == one.title
    assert all(cell_len(line) <= max(width, 30) for line in [ruler, *lines])
    assert len({cell_len(line) for line in lines}) == 1
    shades = [line[-len(lines[0].rstrip(" ")) :] for line in lines]
    assert len(shades) == rows
    assert any(SHADES[-1] in line for line in lines)  # the largest weight


@pytest.mark.parametrize(
    ("columns", "width", "ruler"),
    [
        (4, 80, " 0 1 2 3"),
        (14, 80, "0         5         10"),
        (60, 80, "0         10        20        30        40        50"),
        (130, 80, "0         20        40        60        80        100       120"),
        (11, 80, "0         5         10"),
        (61, 80, "0         10        20        30        40        50"),
    ],
)
def test_the_ruler_numbers_keys(columns: int, width: int, ruler: str) -> None:
    assert draw_map(HeatMap("", np.ones((1, columns), dtype=np.float32), ["x"], ["x"] * columns), width)[1] == " " * 5 + ruler


def test_keys_that_share_a_column_are_said_to() -> None:
    weights = np.zeros((1, 100), dtype=np.float32)
    weights[0, 51] = 1
    lines = draw_map(HeatMap("", weights, ["x"], ["x"] * 100), 56)
    assert lines[2] == f" 0 x {' ' * 25}█{' ' * 24}"
    assert lines[3] == "█ is 1.00; each column is the largest of 2"


@steady
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 7), st.integers(1, 7))
def test_pooling_keeps_the_largest_of_each_block(height: int, width: int, rows: int, columns: int) -> None:
    weights = heat(height, width).weights
    small = pooled(weights, rows, columns)
    assert small.shape == (-(-height // rows), -(-width // columns))
    for (i, j), value in np.ndenumerate(small):
        assert value == weights[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].max()


@steady
@given(st.integers(1, 60), st.integers(1, 60))
def test_thumbnails_are_small_and_bright(rows: int, columns: int) -> None:
    small = thumbnail(heat(rows, columns).weights)
    assert small.shape[0] <= SMALL // 2
    assert small.shape[1] <= SMALL
    assert small.max() == 1
    assert thumbnail(np.zeros((3, 3), dtype=np.float32)).max() == 0


@pytest.mark.parametrize(("width", "across"), [(10, 1), (33, 1), (34, 2), (80, 4), (200, 5)])
def test_thumbnails_stand_side_by_side(width: int, across: int) -> None:
    lines = draw_small([heat(3, 3, f"decoder 0.{number}") for number in range(5)], width)
    assert lines[0].count("decoder 0.") == across
    assert all(len(line) <= max(width, SMALL) for line in lines[:-1])
    assert "".join(lines).count("decoder 0.") == 5
    assert lines[-1] == "█ is the largest weight of each map"


def test_shades() -> None:
    assert [shade(share) for share in (0, 0.03, 0.05, 0.25, 0.4, 0.6, 0.85, 1)] == [*"  ░░▒▓██"]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_picture_is_well_formed_and_its_tokens_escaped(count: int) -> None:
    heats = [heat(len(TOKENS), 4, f"head {number} <&>") for number in range(count)]
    root = ElementTree.fromstring(svg(heats))
    name = "{http://www.w3.org/2000/svg}"
    groups = root.findall(f"{name}g")
    assert len(groups) == count
    for one, group in zip(heats, groups, strict=True):
        texts = [text.text for text in group.findall(f"{name}text")]
        assert texts == [one.title, "<s>", "a&b", "␛[31m", "日本", "<s>", "a&b", "␛[31m", "日本", "∅", '"', "↵"]
        cells = group.findall(f"{name}rect")
        assert [float(cell.findtext(f"{name}title") or "") for cell in cells] == pytest.approx(one.weights.ravel().tolist(), abs=1e-4)
        assert max(float(cell.attrib["fill-opacity"]) for cell in cells) == 1
        for cell in cells:
            assert float(cell.attrib["x"]) + float(cell.attrib["width"]) <= float(root.attrib["width"])
            assert float(cell.attrib["y"]) + float(cell.attrib["height"]) <= float(root.attrib["height"])
