"""The table of a step holds the sampler's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.scripted import END, VOCAB, Stage, speak
from tgen.events import Finished, Note, Piece, Started
from tgen.options import resolve
from tgen.tasks.explaining import Step, explain

CHANCES = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.06, "e": 0.04}
LOGITS = np.full(VOCAB, -np.float64(60))
for letter, chance in CHANCES.items():
    LOGITS[ord(letter)] = np.log(chance)


def played(stage: Stage, count: int = 6, **options: Any) -> tuple[list[Step], list[Any]]:
    """Steps and the other events."""
    found = list(explain(stage.generator, "P", resolve({"max_new_tokens": 1, **options}, {}, {}), count))
    return [one for one in found if isinstance(one, Step)], [one for one in found if not isinstance(one, Step)]


OFF: dict[str, Any] = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}


@pytest.mark.parametrize(
    ("filters", "cut_by"),
    [
        ({}, {}),
        ({"top_k": 2}, {"c": "top_k", "d": "top_k", "e": "top_k"}),
        ({"top_p": 0.85}, {"d": "top_p", "e": "top_p"}),
        ({"min_p": 0.125}, {"e": "min_p"}),
        ({"top_k": 4, "top_p": 0.9, "min_p": 0.6}, {"e": "top_k", "d": "top_p", "c": "min_p"}),
        ({"presence_penalty": 2.0, "top_k": 1}, {"b": "top_k", "c": "top_k", "d": "top_k", "e": "top_k"}),
    ],
)
def test_what_cut_a_candidate(filters: dict[str, Any], cut_by: dict[str, str]) -> None:
    (step,), _ = played(Stage(lambda _: LOGITS), count=5, **{**OFF, **filters}, seed=1)
    assert {one.text: one.cut_by for one in step.candidates} == {letter: cut_by.get(letter) for letter in CHANCES}
    for one in step.candidates:
        assert one.logit == pytest.approx(np.log(CHANCES[one.text]), abs=1e-6)
        assert one.probability == pytest.approx(CHANCES[one.text], abs=1e-6)
        stages = list(one.after)
        assert stages == ["temperature", "top_k", "top_p", "min_p"]
        assert [name for name in stages if one.after[name] is None] == (stages[stages.index(one.cut_by) :] if one.cut_by else [])
    kept = {letter: chance for letter, chance in CHANCES.items() if letter not in cut_by}
    assert {one.text: one.after["min_p"] for one in step.candidates if one.cut_by is None} == pytest.approx(
        {letter: chance / sum(kept.values()) for letter, chance in kept.items()}, abs=1e-6
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_probabilities_left_sum_to_one_and_the_number_lies_in_the_share_it_drew(seed: int) -> None:
    steps, events = played(Stage(lambda _: LOGITS), temperature=1.3, top_k=3, top_p=1, seed=seed, max_new_tokens=6)
    assert [step.number for step in steps] == list(range(6))
    for step in steps:
        assert step.left == {"temperature": VOCAB, "top_k": 3, "top_p": 3, "min_p": 3}
        shares = {one.id: one.after["min_p"] or 0.0 for one in step.candidates}
        assert sum(shares.values()) == pytest.approx(1)
        assert step.uniform is not None
        assert 0 <= step.low <= step.uniform < step.high <= 1 + 1e-12
        assert step.high - step.low == pytest.approx(shares[step.token])
        assert step.low == pytest.approx(sum(share for token, share in shares.items() if token < step.token))
        assert [one.id for one in step.candidates if one.drawn] == [step.token]
        for one in step.candidates:
            below = sum(share for token, share in shares.items() if token < one.id)
            assert one.low == (None if one.cut_by else pytest.approx(below))
    assert "".join(step.text for step in steps) == "".join(event.text for event in events if isinstance(event, Piece))
    assert len({step.uniform for step in steps}) == 6


def test_the_drawn_token_is_shown_even_if_it_is_none_of_the_best() -> None:
    steps, _ = played(Stage(lambda _: LOGITS), count=1, **OFF, seed=2, max_new_tokens=30)
    assert {len(step.candidates) for step in steps} == {1}
    assert {step.candidates[0].text for step in steps} >= {"a", "b", "c"}
    assert all(step.candidates[0].drawn for step in steps)


def test_penalties_show_in_the_score_alone() -> None:
    first, second = played(Stage(lambda _: LOGITS), temperature=0, presence_penalty=5, max_new_tokens=2)[0]
    assert [one.score for one in first.candidates] == [one.logit for one in first.candidates]
    assert (first.text, second.text) == ("a", "b")
    scores = {one.text: (one.logit, one.score) for one in second.candidates}
    assert scores["a"] == pytest.approx((np.log(0.4), np.log(0.4) - 5), abs=1e-6)


def test_at_temperature_zero_nothing_is_drawn() -> None:
    (step,), _ = played(Stage(lambda _: LOGITS), temperature=0)
    assert (step.text, step.uniform, step.low, step.high, step.left) == ("a", None, 0, 1, {})
    assert all(one.after == {} and one.cut_by is None for one in step.candidates)


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_forbidden_token_has_no_score_and_is_cut_by_rules(temperature: float) -> None:
    stage = Stage(lambda _: LOGITS, defaults={"forced_bos_token_id": ord("c")})
    (step,), _ = played(stage, count=3, temperature=temperature)
    assert (step.candidates[0].text, step.candidates[0].cut_by) == ("c", None)
    assert [(one.score, one.cut_by) for one in step.candidates[1:]] == [(None, "rules")] * 2
    assert all(share is None for one in step.candidates[1:] for share in one.after.values())


def test_all_other_events_come_through_and_each_step_before_what_it_leads_to() -> None:
    found = list(explain(Stage(speak("a😀")).generator, "P", resolve({"temperature": 0}, {}, {}), 2))
    kinds = [type(event) for event in found]
    assert kinds == [Started, Step, Piece, Step, Step, Step, Step, Piece, Step, Finished]
    assert isinstance(found[-2], Step)
    assert found[-2].token == END
    cut = resolve({"overflow": "truncate-left", "max_new_tokens": 1}, {}, {})
    assert isinstance(next(explain(Stage(lambda _: LOGITS, context=8).generator, "P" * 9, cut, 2)), Note)


def test_only_the_first_sample_is_explained() -> None:
    steps, events = played(Stage(lambda _: LOGITS), samples=3, seed=4, max_new_tokens=2)
    assert len(steps) == 2
    assert sum(isinstance(event, Finished) for event in events) == 3
