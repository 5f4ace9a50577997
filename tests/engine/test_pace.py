"""How many ids of prompts a step reads beside rows that decode: as many as keep the step short, by the times of the last steps."""

from __future__ import annotations

import pytest

from tgen.engine.pace import CROWD, EXTRA, FIRST, Pace


def learned(start: float, each: float, *, steps: int = 50, rows: int = 1, held_up: int | None = None) -> Pace:
    """A pace that has seen steps of `rows` rows, every other one with the ids of a prompt that it asked for."""
    pace = Pace(measured=True)
    for step in range(steps):
        ids = rows + (pace.beside(rows) if step % 2 else 0)
        pace.learn(ids, (start + each * ids) * (100 if step == held_up else 1))
    return pace


@pytest.mark.parametrize(("start", "each", "rows"), [(1e-3, 1e-4, 1), (2e-3, 5e-5, 16), (1e-5, 1e-3, 4), (0.3, 1e-3, 1)])
def test_prompts_add_a_share_of_the_time(start: float, each: float, rows: int) -> None:
    ids = learned(start, each, rows=rows).beside(rows)
    allowed = EXTRA * (start + each * rows)
    assert ids == 1 or each * ids <= allowed * 1.01
    assert each * (ids + 1) > allowed * 0.99


def test_a_crowd_of_prompts_may_add_more() -> None:
    for pace in (learned(1e-3, 1e-4), Pace(measured=True), Pace(measured=False)):
        one = pace.beside(1)
        assert pace.beside(1, 0) == one
        assert pace.beside(1, 3) == pytest.approx(3 * one, abs=3)
        assert pace.beside(1, 100) == pytest.approx(CROWD * one, abs=CROWD)


def test_a_step_that_was_held_up_hardly_counts() -> None:
    usual = learned(1e-3, 1e-4).beside(1)
    assert usual / 2 <= learned(1e-3, 1e-4, held_up=40).beside(1) <= usual * 2


def test_steps_of_one_size_do_not_tell_what_an_id_costs() -> None:
    pace = Pace(measured=True)
    for _ in range(100):
        pace.learn(1, 1e-3)
    assert pace.beside(1) == FIRST


def test_what_it_knows_outlasts_steps_of_one_size() -> None:
    pace = learned(1e-3, 1e-4)
    before = pace.beside(1)
    for _ in range(1000):
        pace.learn(1, 1.1e-3)
    assert pace.beside(1) == pytest.approx(before, abs=1)


def test_without_a_clock_every_run_reads_alike() -> None:
    pace = Pace(measured=False)
    before = pace.beside(3)
    for ids in range(1, 50):
        pace.learn(ids, ids * 1e-3)
    assert pace.beside(3) == before
