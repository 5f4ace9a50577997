"""A step as a table: what stands in which column, whatever the token and the number."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from tgen.ui.steps import draw_step

STAGES = ("temperature", "top_k", "top_p", "min_p")


def step(*rows: dict[str, Any], uniform: float | None = 0.5) -> dict[str, Any]:
    plain = {"text": "x", "logit": 1.0, "probability": 0.5, "score": 1.0, "drawn": False, "cut_by": None}
    left = dict.fromkeys(STAGES, 9) if uniform is not None else {}
    filled = [{**plain, "after": dict.fromkeys(left, 0.5), **row} for row in rows]
    return {"number": 0, "text": "x", "uniform": uniform, "low": 0.25, "high": 0.75, "left": left, "candidates": filled}


def test_a_table() -> None:
    cut = {"temperature": 0.25, "top_k": 0.25, "top_p": None, "min_p": None}
    assert draw_step(step({"drawn": True}, {"text": "\n", "logit": -2.0, "score": -2.0, "after": cut})).splitlines() == [
        'token 1: "x"',
        "  of 9, top-k leaves 9, top-p leaves 9, min-p leaves 9",
        "  drawn by 0.500000, in its share 0.250000 to 0.750000",
        "  candidate              logit     raw    temp   top-k   top-p   min-p",
        '* "x"                    1.000  0.5000  0.5000  0.5000  0.5000  0.5000',
        '  "↵"                   -2.000  0.5000  0.2500  0.2500     cut',
    ]


def test_a_score_is_shown_where_it_says_something() -> None:
    forbidden: dict[str, Any] = {"text": "b", "score": None, "after": {}, "cut_by": "rules"}
    assert draw_step(step({"score": 0.5}, forbidden, uniform=None)).splitlines()[1:] == [
        "  temperature 0: the highest score, nothing is drawn",
        "  candidate              logit     raw   score",
        '  "x"                    1.000  0.5000   0.500',
        '  "b"                    1.000  0.5000     cut',
    ]


@pytest.mark.parametrize("text", ["x" * 99, "日本" * 20, "\x1b[31m", "", '"'])
@pytest.mark.parametrize("logit", [1.0, -1e30, -1e300, 123456.0])
def test_columns_stay_in_line(text: str, logit: float) -> None:
    *_, usual, other = draw_step(step({}, {"text": text, "logit": logit})).splitlines()
    assert cell_len(other) == cell_len(usual)
    assert "\x1b" not in other
