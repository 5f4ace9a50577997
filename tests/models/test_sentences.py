"""Sentences that people wrote, as openings of the story generator."""

import json
import re
from pathlib import Path

import pytest

from models.storyteller import sentences
from models.storyteller.sentences import Reader
from models.storyteller.worlds.make import Settings, chosen, make

STORY = (
    "One day Lily saw a frog. The ball was red and Lily had her ball. Tim said that Lily ran. Then Tim and Lily went to the park. "
    "Her mother saw Tim. In the park the bus was late. A little boy had lost his old hat. "
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader([STORY] * 4, ["frog", "polar bear"])


@pytest.mark.parametrize(
    ("sentence", "read"),
    [
        ("Lily had a red ball.", ("named", "{a.name} had a red ball.")),
        ("In the park Tim lost his hat.", ("named", "In the park {a.name} lost {a's} hat.")),
        ("She had lost her ball.", ("named", "{a.name} had lost {a's} ball.")),
        ("One day a little boy named Zacharias lost his hat.", ("named", "One day {a.intro} lost {a's} hat.")),
        ("The bus was late.", ("free", "The bus was late.")),
        ("One day a little frog saw the red ball.", ("frog", "One day {a.a} saw the red ball.")),
        ("The boy was late.", ("child", "{a.a} was late.")),
        ("Lily and Tim went to the park.", None),  # two names
        ("Lily saw a frog.", ("named", "{a.name} saw a frog.")),
        ("A boy saw a frog.", None),  # either may be the hero
        ("The bus saw her.", None),  # nobody is named whom "her" can mean
        ("I had a red ball.", None),
        ("Then the bus was late.", None),  # leans on what came before
        ("The bus goes to the park.", None),  # not told as past
        ("The omnibus was late.", None),  # not a simple word
        ("Lily said that the bus was late.", None),
        ("Late was the bus.", None),
    ],
)
def test_a_sentence_becomes_a_line_about_the_hero(reader: Reader, sentence: str, read: tuple[str, str] | None) -> None:
    assert reader.read(sentence) == read


def test_stories_begin_with_sentences_that_were_found(tmp_path: Path) -> None:
    books = [
        {"kind": "picture book", "title": "A bus", "text": STORY},
        {"kind": "novel", "text": "The novel was late."},
        {"text": STORY * 3},
    ]
    (tmp_path / "books.jsonl").write_text("".join(json.dumps(book) + "\n" for book in books), "utf-8")
    (tmp_path / "pairs.tsv").write_text("The hat was red.\tLe chapeau était rouge.\nTim lost a frog.\t...\n", "utf-8")
    out = tmp_path / "sentences.json"
    assert sentences.main([str(tmp_path / "books.jsonl"), str(tmp_path / "pairs.tsv"), "-o", str(out)]) == 0
    found = json.loads(out.read_text("utf-8"))
    assert "The hat was red." in found["free"] and "In the park the bus was late." in found["free"]
    assert found["sorts"] == {"child": ["{a.a} had lost {a's} old hat."]}
    assert not any("novel" in line for line in found["free"])
    settings = Settings(5, chosen([], []), 0.0, out)
    texts = [make(settings, number).text for number in range(200)]
    begun = sum(text.startswith(tuple(found["free"])) for text in texts)
    assert 8 < begun < 60
    assert texts == [make(settings, number).text for number in range(200)]


def test_a_hero_of_whom_a_sentence_says_only_the_sort_gets_a_name(tmp_path: Path) -> None:
    """A line about a hero with a name also serves for one without: a model must learn that the one in an opening is the hero."""
    out = tmp_path / "sentences.json"
    lines = {"named": ["{a.name} was sad.", "{a.name} and {a.intro} sang."], "free": ["It rained."], "sorts": {}}
    out.write_text(json.dumps(lines), "utf-8")
    texts = [make(Settings(5, chosen([], []), 0.0, out), number).text for number in range(200)]
    opened = [text for text in texts if re.match(r"(?:[A-Z][\w ,]* )?[Aa]n? (?:\S+ ){1,3}(?:(?:who|that) )?was sad\.", text)]
    assert len(opened) > 20
    names = {text: re.search(r"\. (?:.* name|Th\w+ \S+) was (?:called )?([A-Z]\w+)", text[:200]) for text in opened}
    named = {text: found[1] for text, found in names.items() if found}
    assert len(named) > len(opened) / 2
    assert all(text.count(name) > 1 for text, name in named.items() if len(text.split()) > 40), "the story is about the one in the opening"
    assert not any(re.search(r"\b([A-Z]\w+)(?:'s name was| was called| is) \1\b", text) for text in opened)
