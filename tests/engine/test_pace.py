"""How many ids of prompts a step reads beside rows that decode: as many as keep the step short, by the times of the last steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tgen.engine.pace import CROWD, PATIENCE, Pace

# Milliseconds of a step that reads so many ids of prompts, 0 for none.
Cost = Callable[[int], float]


def linear(start: float, each: float) -> Cost:
    return lambda ids: start + each * ids


def jump(ids: int) -> float:
    """The first further id costs most, as where one row alone has a kernel of its own."""
    return 1.0 if ids == 0 else 2.1 + 0.02 * ids


def read(pace: Pace, cost: Cost, steps: int, held_up: int | None = None) -> list[int]:
    """The ids of prompts that each step read."""
    sizes = []
    for step in range(steps):
        sizes.append(pace.beside(1))
        pace.learn(sizes[-1], cost(sizes[-1]) * (100 if step == held_up else 1) / 1000)
    return sizes


def settled(cost: Cost) -> Pace:
    """A pace that has seen rows decode alone, then beside a prompt."""
    pace = Pace(measured=True)
    for _ in range(30):
        pace.learn(0, cost(0) / 1000)
    read(pace, cost, 60)
    return pace


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (linear(1, 0.03), 32),
        (linear(30, 0.25), 64),
        (linear(1, 0.3), 2),
        (linear(1, 5), 1),
        (linear(1, 1e-4), 256),
        (jump, 8),
    ],
    ids=["few", "larger", "dear", "very dear", "cheap", "jump"],
)
def test_a_step_takes_little_longer_than_one_without_prompts(cost: Cost, expected: int) -> None:
    pace = settled(cost)
    sizes = read(pace, cost, 300)
    assert max(set(sizes), key=sizes.count) == expected
    assert max(sizes) <= 2 * expected, "no more is tried now and then"


def test_a_crowd_of_prompts_may_add_more() -> None:
    for pace in (settled(linear(1, 0.03)), Pace(measured=True), Pace(measured=False)):
        one = pace.beside(16)
        assert pace.beside(16, 0) == one
        assert pace.beside(16, 3) == 3 * one
        assert pace.beside(16, 15) == 15 * one, "a batch that comes at once soon decodes together"
        assert pace.beside(100, 99) == CROWD * pace.beside(100)


def test_prompts_that_outnumber_the_rows_come_first() -> None:
    pace = settled(linear(1, 0.03))
    one = pace.beside(1)
    assert pace.beside(2, 2) == 2 * one
    assert pace.beside(2, 4) == 4 * one * 2
    assert pace.beside(1, 8) == 8 * one * 8
    assert 0.9 * PATIENCE < pace.beside(1, 16) * (0.03 + 1 / one) / 1000 <= PATIENCE, "but a row does not wait long for its next token"
    slow = settled(linear(100, 3))
    assert slow.beside(1, 15) == 15 * slow.beside(1)
    new = Pace(measured=True)
    assert new.beside(1, 15) == 15 * new.beside(1), "nor before it is known how long"


def test_a_step_that_was_held_up_hardly_counts() -> None:
    pace = settled(linear(1, 0.03))
    sizes = read(pace, linear(1, 0.03), 200, held_up=10)
    assert min(sizes) >= 16
    assert sizes[-1] == 32
    pace.learn(0, 1.0)
    assert set(read(pace, linear(1, 0.03), 50)) == {32}, "nor one without prompts"


@pytest.mark.parametrize("factor", [0.1, 4.0])
def test_a_machine_that_became_faster_or_slower_reads_on_alike(factor: float) -> None:
    pace = settled(linear(1, 0.03))
    sizes = read(pace, lambda ids: factor * linear(1, 0.03)(ids), 400)
    assert 8 <= sizes[-1] <= 256
    assert sum(sizes) > 8 * 400


def test_rows_that_never_decode_alone() -> None:
    pace = Pace(measured=True)
    assert 8 <= read(pace, linear(1, 0.03), 200)[-1] <= 64


def test_guesses_leave_less_room_for_prompts() -> None:
    pace = settled(linear(1, 0.03))
    assert pace.beside(1, guesses=4) == pace.beside(1) - 4
    assert pace.beside(1, guesses=100) == 1


def test_the_end_of_a_prompt_changes_nothing() -> None:
    pace = settled(linear(1, 0.03))
    for ids in (3, 9, 31):
        pace.learn(ids, 1.0)
    assert pace.beside(1) == 32


def test_without_a_clock_every_run_reads_alike() -> None:
    pace = Pace(measured=False)
    before = pace.beside(3)
    for ids in range(1, 50):
        pace.learn(ids, ids * 1e-3)
    assert pace.beside(3) == before
