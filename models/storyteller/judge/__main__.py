"""Judges a model folder by what it writes: `python -m models.storyteller.judge FOLDER --training training.jsonl`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from models.storyteller.worlds.make import Settings, chosen

from . import ask_model, questions, variety, wishes

UNSEEN = 90_000  # added to the seed, so that no wish and no question is one of the training text's


def _documents(path: Path) -> Iterator[str]:
    """The stories and answers of a file of text and messages lines; a message of the user is learned from, too, so it counts."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            yield record["text"] if "text" in record else "\n".join(message["content"] for message in record["messages"])


def judge(folder: Path, training: Path | None, counts: tuple[int, int, int], seed: int, tokens: int) -> Iterator[tuple[str, str]]:
    """The measures of a model by name; `counts`: how many stories, wishes and questions."""
    settings = Settings(UNSEEN + seed, chosen([], []), 0.0)
    chat = ask_model.understands_chats(folder)
    wished, asked = wishes.wishes(settings, counts[1]), questions.questions(settings, counts[2])
    requests = [ask_model.request("", chat, seed=seed + number, max_new_tokens=tokens) for number in range(counts[0])]
    requests += [ask_model.request(wish.text, chat, seed=seed, max_new_tokens=tokens) for wish in wished]
    requests += [ask_model.request(question.text, chat, temperature=0, max_new_tokens=40) for question in asked]
    texts = ask_model.answers(folder, requests)
    stories, after = texts[: counts[0]], texts[counts[0] :]
    if stories:
        yield from variety.rows(stories, None if training is None else _documents(training))
    if wished:
        yield from wishes.rows(wished, after[: counts[1]])
    if asked:
        yield from questions.rows(asked, after[counts[1] :])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.judge", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=Path, help="what models.storyteller.chats wrote: how much do the stories copy from it?")
    parser.add_argument("--stories", type=int, default=1000, help="how many stories (default: %(default)s)")
    parser.add_argument("--wishes", type=int, default=100, help="how many wishes with three words (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=200, help="how many questions (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=500, metavar="INT", help="the longest story (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    counts = (options.stories, options.wishes, options.questions)
    for name, value in judge(options.folder, options.training, counts, options.seed, options.max_new_tokens):
        print(f"{name:46} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
