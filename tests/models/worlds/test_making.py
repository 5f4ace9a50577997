"""Plots that can be played, wishes and questions that fit, and the command that writes them."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from models.storyteller import chats
from models.storyteller.worlds import ask
from models.storyteller.worlds.book import plots, read_sections
from models.storyteller.worlds.check import all_faults, play
from models.storyteller.worlds.make import Settings, main, make
from models.storyteller.worlds.near import Shelf, sketch
from models.storyteller.worlds.simulate import simulate
from models.storyteller.worlds.tell import Manner, Telling, tell
from models.storyteller.worlds.world import Character


def test_no_plot_has_a_fault() -> None:
    assert all_faults() == []
    assert {section.name: dict(wrong) for section in plots() if (wrong := play(section, 6))} == {}


def telling(seed: int) -> Telling:
    rng = random.Random(seed)
    section = next(section for section in plots() if section.name == "lost-thing")
    return tell(simulate(section, rng), Manner(), rng)


def test_questions_have_answers_that_the_story_gives() -> None:
    answers = {}
    for seed in range(30):
        one = telling(seed)
        for question, answer in ask.questions(one, random.Random(seed)):
            answers[re.sub(r"[A-Z]\w+(?!\w* )", "X", question)] = answer
            for word in re.findall(r"\b[A-Z][a-z]+\b", answer[1:]):
                assert word in one.text, (question, answer, one.text)
            if question.startswith("What did") and "lose" in question:
                thing = one.story.entities["t"]
                assert answer == f"The {thing.noun}."
            if question.startswith("Who found"):
                assert answer.rstrip(".") in {getattr(entity, "name", "") for entity in one.story.entities.values()}
    assert len(answers) > 20


def test_questions_call_people_by_their_names() -> None:
    section = next(section for section in plots() if section.name == "down-the-well")
    for seed in range(20):
        rng = random.Random(seed)
        one = tell(simulate(section, rng), Manner(), rng)
        for question, _ in ask.questions(one, rng):
            assert not re.search(r"[A-Z]\w+ the [a-z]+ and", question), question  # the story has told what they are


TWICE = """# twice
cast: a hero; t toy; p outdoor; q outdoor
title: Twice
! at a p; have a t; lose a t p; take a t; go a q; lose a t q
{a} lost {t} {p.at}, and {a} lost {t} {q.at}.
"""


def test_what_has_two_answers_is_not_asked() -> None:
    section = next(read_sections(TWICE))
    for seed in range(20):
        rng = random.Random(seed)
        one = tell(simulate(section, rng), Manner(), rng)
        found = dict(ask.questions(one, rng))
        assert any(question.startswith("Who lost") for question in found)
        assert not any(question.startswith("Where was") for question in found)


def test_nothing_is_said_of_the_cast_that_the_story_does_not_say() -> None:
    one = telling(1)
    hero = one.story.entities["a"]
    assert isinstance(hero, Character)
    silent = replace(one, text="Nobody was there.")
    for text in (f"Where was {hero.name}?", f"a {hero.noun}", f"{hero.name}'s hat", f"How {hero.trait}!"):
        assert not ask.grounded(text, silent)
        assert ask.grounded(text, replace(one, text=f"{hero.name} was a {hero.trait} {hero.noun}."))


def test_a_wish_fits_the_story_that_follows() -> None:
    for seed in range(40):
        one, rng = telling(seed), random.Random(seed)
        words = ask.three_words(one, rng)
        wish = ask.words_wish(words, rng)
        assert len(words) == 3 and all(word in one.text and word in wish for word in words)
        first, rest = ask.cut(one, rng)
        assert re.sub(r"\s", "", first + rest) == re.sub(r"\s", "", one.text)
        assert ask.grounded(ask.wish(one, rng), one)
        found = json.loads(ask.record(one))
        assert set(found) == {"characters", "places", "things"}
        assert all(person.get("name", "") in one.text for person in found["characters"])


def test_the_same_story_with_another_name_is_a_near_duplicate() -> None:
    text, other = telling(1).text, telling(2).text
    name = next(entity.name for entity in telling(1).story.entities.values() if hasattr(entity, "name"))
    shelf = Shelf(limit=0.5)
    twin = text.replace(name, "Zebedee")
    assert [shelf.add(one, sketch(one)) for one in (text, other, twin, text)] == [True, True, False, False]


def test_short_texts_are_compared_by_all_they_have() -> None:
    shelf = Shelf(limit=0.5)
    for thing in ("kite", "coin", "drum", "key", "bell", "hat"):
        for name, new in (("Rufus", True), ("Nibs", False)):
            text = f"A shy fox named {name} lost a {thing}, and it was in the {thing} box, under a {thing} with a {thing} on it."
            assert shelf.add(text, sketch(text)) == new, text


def test_the_command_writes_the_same_with_any_number_of_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for processes in (1, 2):
        assert main(["--words", "3000", "--seed", "7", "--processes", str(processes), "-o", str(tmp_path / f"{processes}.jsonl")]) == 0
    one, two = ((tmp_path / f"{processes}.jsonl").read_text() for processes in (1, 2))
    assert one == two
    assert "near-duplicates left out" in capsys.readouterr().err
    for line in one.splitlines():
        record = json.loads(line)
        assert set(record) == {"kind", "plot", "style", "prompt", "text", "asked"} and record["text"]


def test_stories_become_texts_and_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stories, out = tmp_path / "stories.jsonl", tmp_path / "training.jsonl"
    assert main(["--words", "12000", "--seed", "2", "--questions", "0.5", "--processes", "1", "-o", str(stories)]) == 0
    assert chats.main([str(stories), "-o", str(out)]) == 0
    assert re.search(r"\bmessages: [\d,]+ words", capsys.readouterr().err)
    records, lines = ([json.loads(line) for line in path.read_text().splitlines()] for path in (stories, out))
    for record, line in zip(records, lines, strict=True):
        if not record["prompt"] and not record["asked"]:
            assert line == {"text": record["text"]}
            continue
        said = line["messages"]
        assert [message["role"] for message in said] == ["user", "assistant"] * (len(said) // 2)
        assert said[-1]["content"] == (record["asked"][-1]["answer"] if record["asked"] else record["text"])
        assert record["text"] in said[1 if record["prompt"] else 0]["content"]
        assert len(said) == 2 * (bool(record["prompt"]) + len(record["asked"]))
    assert max(len(line.get("messages", ())) for line in lines) >= 6


def test_plots_can_be_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stories.jsonl"
    held = "lost-thing,the-race"
    assert main(["--words", "6000", "--processes", "1", "--hold-out", held, "-o", str(out)]) == 0
    used = {json.loads(line)["plot"] for line in out.read_text().splitlines()}
    assert used and not used & set(held.split(","))
    assert main(["--words", "500", "--processes", "1", "--only", "the-race", "-o", str(out)]) == 0
    assert {json.loads(line)["plot"] for line in out.read_text().splitlines()} == {"the-race"}
    assert main(["--only", "no-such-plot"]) == 2
    assert "no plot is called no-such-plot" in capsys.readouterr().err


def test_a_story_depends_on_seed_and_number_alone() -> None:
    names = tuple(section.name for section in plots())
    assert make(Settings(3, names, 1.0), 5) == make(Settings(3, names, 1.0), 5)
    assert make(Settings(3, names, 1.0), 5) != make(Settings(4, names, 1.0), 5)
