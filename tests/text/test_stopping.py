"""Stop strings are found wherever they fall, and nothing of them is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.scripted import Stage, speak
from tgen.text.stopping import StopStrings

steady = settings(deadline=None, derandomize=True, database=None, max_examples=400)
# Two letters, so that stop strings overlap themselves and one another.
pieces = st.lists(st.text("ab", max_size=4), max_size=8)
stop_strings = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def feed(stops: list[str], parts: list[str]) -> tuple[list[str], bool]:
    """What is shown piece by piece, and whether a stop string was met."""
    stopping, shown = StopStrings(stops), []
    for part in parts:
        text, stopped = stopping.feed(part)
        shown.append(text)
        if stopped:
            return shown, True
    return [*shown, stopping.flush()], False


@steady
@given(st.text("ab", min_size=1, max_size=4), pieces)
def test_one_stop_is_cut_where_find_finds_it(stop: str, parts: list[str]) -> None:
    whole = "".join(parts)
    place = whole.find(stop)
    shown, stopped = feed([stop], parts)
    assert stopped == (place >= 0)
    assert "".join(shown) == (whole[:place] if stopped else whole)


@steady
@given(stop_strings, pieces)
def test_of_several_the_first_to_be_complete_wins(stops: list[str], parts: list[str]) -> None:
    whole = "".join(parts)
    ends = [end for end in range(len(whole) + 1) if any(whole[:end].endswith(stop) for stop in stops)]
    expected = whole
    if ends:
        longest = max(len(stop) for stop in stops if whole[: ends[0]].endswith(stop))
        expected = whole[: ends[0] - longest]
    shown, stopped = feed(stops, parts)
    assert (stopped, "".join(shown)) == (bool(ends), expected)


@steady
@given(stop_strings, pieces)
def test_no_more_is_held_back_than_must_be(stops: list[str], parts: list[str]) -> None:
    stopping, read, shown = StopStrings(stops), "", ""
    for part in parts:
        text, stopped = stopping.feed(part)
        if stopped:
            return
        read, shown = read + part, shown + text
        held = read.removeprefix(shown)
        assert held == "" or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "reason", "count"),
    [
        ("one. two", ["."], "one", "stop", 4),
        ("one\n\ntwo", ["\n\n"], "one", "stop", 5),
        ("one\nand", ["\n\n"], "one\nand", "stop", 8),  # by the end token
        ("aab", ["ab"], "a", "stop", 3),
        ("hello", ["h"], "", "stop", 1),
        ("one two", ["two", "ne"], "o", "stop", 3),
        ("abcd", ["abcd", "bc"], "a", "stop", 3),  # bc is complete first
        ("abc", ["abc", "bc", "c"], "", "stop", 3),  # all at once: the longest
        ("naïve ☃ end", ["☃"], "naïve ", "stop", 10),
        ("the P prompt", ["P"], "the ", "stop", 5),  # what the prompt says does not count
    ],
)
def test_in_generation(text: str, stop: list[str], expected: str, reason: str, count: int) -> None:
    played = Stage(speak(text)).play(temperature=0, stop=stop)
    assert (played.text(), played.finished[0].reason, played.finished[0].token_count) == (expected, reason, count)


def test_held_back_text_is_shown_when_the_length_is_reached() -> None:
    played = Stage(speak("one two")).play(temperature=0, stop=["e tx"], max_new_tokens=5)
    assert played.pieces() == ["o", "n", "e t"]
    assert played.finished[0].reason == "length"


def test_held_back_text_is_shown_when_the_end_token_comes() -> None:
    assert Stage(speak("one t")).play(temperature=0, stop=["e tx"]).pieces() == ["o", "n", "e t"]


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert Stage(speak("one")).play(temperature=0).pieces() == ["o", "n", "e"]
