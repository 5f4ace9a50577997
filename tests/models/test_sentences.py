"""Sentences that people wrote, as openings of the story generator."""

import json
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
    texts = [make(settings, number).text for number in range(60)]
    begun = sum(text.startswith(tuple(found["free"])) for text in texts)
    assert 8 < begun < 40
    assert texts == [make(settings, number).text for number in range(60)]
