"""How many threads a region has where other processes want the cores, and where they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tgen.executors.native.build import HERE

pytestmark = pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="needs g++ on Linux")
Driver = Callable[..., str]
Region = tuple[int, int, int]  # microseconds that passed, that the caller ran of them, and until the next region
ALONE, SHARED, DELAYED = (1000, 1000, 0), (1000, 500, 0), (5000, 1000, 0)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A function that runs the driver and returns what it prints."""
    program = tmp_path_factory.mktemp("threads") / "driver"
    sources = [Path(__file__).with_name("threads.cpp"), HERE / "src" / "threads.cpp"]
    subprocess.run(["g++", "-std=c++17", "-O1", "-Wall", "-pthread", f"-I{HERE / 'src'}", *sources, "-o", program], check=True)

    def run(*words: object) -> str:
        return subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True, timeout=120).stdout.strip()

    return run


def sizes(driver: Driver, most: int, regions: list[Region]) -> list[int]:
    """A team's size before the first region and after each one."""
    return [int(word) for word in driver("team", most, *(number for region in regions for number in region)).split()]


def test_a_team_that_runs_keeps_its_threads(driver: Driver) -> None:
    assert set(sizes(driver, 4, [ALONE] * 200)) == {4}


def test_a_single_delay_does_not_count(driver: Driver) -> None:
    assert set(sizes(driver, 2, ([DELAYED] + [ALONE] * 20) * 5)) == {2}


def test_what_ran_long_before_does_not_excuse_waiting(driver: Driver) -> None:
    assert 1 in sizes(driver, 2, [ALONE] * 10000 + [SHARED] * 50)


def test_threads_that_wait_for_cores_become_fewer_one_by_one(driver: Driver) -> None:
    found = sizes(driver, 4, [SHARED] * 100)
    assert found[-1] == 1
    assert {before - after for before, after in pairwise(found)} == {0, 1}


def test_one_thread_is_not_judged(driver: Driver) -> None:
    assert set(sizes(driver, 1, [SHARED] * 100)) == {1}


def test_a_larger_team_is_tried_after_a_pause_that_grows_while_trials_fail(driver: Driver) -> None:
    found = sizes(driver, 2, [SHARED] * 6000)
    alone = [len(part) for part in "".join(map(str, found)).split("2") if part]
    assert alone[:6] == sorted(set(alone[:6]))  # each pause is longer than the one before
    assert alone[0] in range(19, 22)
    assert max(alone) in range(639, 642)
    assert found.count(2) < 0.1 * len(found)


def test_all_threads_work_again_when_the_others_are_gone(driver: Driver) -> None:
    found = sizes(driver, 4, [SHARED] * 100 + [ALONE] * 800)
    assert found[100] == 1 and set(found[-100:]) == {4}


def test_the_pause_is_short_again_after_a_good_time(driver: Driver) -> None:
    bad, good = [SHARED] * 1000, [ALONE] * 3000
    found = sizes(driver, 2, bad + good + bad)
    later = "".join(map(str, found[len(bad + good) :])).strip("2").split("2")
    assert len(later[0]) in range(19, 22)


def test_two_threads_on_one_core_become_one(driver: Driver) -> None:
    assert driver("crowd") == "1"


def test_waits_for_a_disk_are_not_those_for_a_core(driver: Driver) -> None:
    assert driver("crowd", "disk") == "2"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_thread_keeps_off_the_core_of_the_caller(driver: Driver) -> None:
    kept_off, _, seen = driver("apart").split()
    assert int(kept_off) == int(seen) > 0
