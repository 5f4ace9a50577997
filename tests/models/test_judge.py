"""The measures of a storyteller: what they count, and one run of the command on the shipped model."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from models.storyteller.judge import __main__ as command
from models.storyteller.judge import ask_model, questions, variety, wishes
from models.storyteller.worlds.make import Settings, chosen

MODEL = Path(__file__).parents[2] / "models/storyteller"


@functools.cache
def settings() -> Settings:
    return Settings(7, chosen([], []), 0.0)


def test_shared_5_grams_are_counted_against_the_shorter_story() -> None:
    shares = variety.shared(
        ["one two three four five six", "zero one two three four five six seven", "nothing of all this is in the others"]
    )
    assert shares == [1.0, 1.0, 0.0]
    half = variety.shared(["a b c d e f g h", "a b c d e f x y"])  # 2 of 4 5-grams
    assert half == [0.5, 0.5]


def test_what_is_copied_is_found_across_documents_and_at_their_edges() -> None:
    story = "the fox ran over the hill and down to the river where the geese were asleep"
    documents = ["A goat said: the fox ran over the hill and down again.", "hill and down to the river where the geese were Asleep!", "no"]
    found = variety.copied([story, "the hill is green"], documents)
    assert found.longest == [11, 0]
    assert found.share == (1 + 4) / 9
    assert variety.copied([story], [story]).longest == [16]
    assert variety.copied([story], [story]).share == 1.0


def test_repetition_is_the_part_said_before() -> None:
    assert variety.repetition("it was a day and it was a day") == pytest.approx(1 / 6)
    assert variety.repetition("so") == 0.0


def test_a_wish_is_kept_only_by_whole_words() -> None:
    (wish,) = wishes.wishes(settings(), 1)
    assert len(wish.words) == 3 and all(word in wish.text for word in wish.words)
    assert wishes.kept(wish, "x".join(wish.words)) == 0
    assert wishes.kept(wish, " ".join(wish.words).upper()) == 3
    assert dict(wishes.rows([wish, wish], [" ".join(wish.words), wish.words[0]])) == {
        "wishes whose words all are in the story": "1 of 2",
        "words wished for that are in the story": "66.7%",
    }


def test_an_answer_counts_without_articles_capitals_and_what_follows() -> None:
    asked = questions.questions(settings(), 12)
    assert len({question.text for question in asked}) == 12
    right = [f"{question.answer.upper().rstrip('.')}\nAnd so on." for question in asked]
    assert dict(questions.rows(asked, right))["questions answered as the events do"] == "12 of 12"
    assert dict(questions.rows(asked, ["x", *right[1:]]))["questions answered as the events do"] == "11 of 12"
    assert questions.normal("The red kite.") == questions.normal("a RED kite") != questions.normal("a kite")


def test_a_model_with_a_template_gets_messages(tmp_path: Path) -> None:
    assert not ask_model.understands_chats(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    assert ask_model.understands_chats(tmp_path)
    assert ask_model.request("Hello", True, seed=1) == {"messages": [{"role": "user", "content": "Hello"}], "seed": 1}
    assert ask_model.request("Hello", False) == {"prompt": "Hello\n\n"}
    assert ask_model.request("", True) == {"prompt": ""}


def with_template(folder: Path) -> Path:
    """The shipped model with a chat template."""
    folder.mkdir()
    for path in MODEL.iterdir():
        if path.name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / path.name).symlink_to(path)
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_the_command_judges_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, folder = tmp_path / "training.jsonl", str(with_template(tmp_path / "model"))
    training.write_text('{"text": "Once."}\n{"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Ah."}]}\n')
    counts = ["--stories", "2", "--wishes", "1", "--questions", "1", "--max-new-tokens", "12"]
    assert command.main([folder, "--training", str(training), *counts]) == 0
    table = capsys.readouterr().out
    for name in ("stories, and words", "longest run from the training text", "wishes whose words", "questions answered"):
        assert name in table
    assert "2, " in table.splitlines()[0]


def test_a_line_that_fails_counts_as_an_empty_text() -> None:
    message = {"choices": [{"message": {"role": "assistant", "content": "Once."}}]}
    records: list[dict[str, Any]] = [message, {"choices": [{"text": "Once."}]}, {"error": {"message": "no"}}]
    assert [ask_model.text_of(record) for record in records] == ["Once.", "Once.", ""]
    assert variety.shared(["", ""]) == [0.0, 0.0]
