"""Questions about stories that the model has not seen: is the answer the one that the events give?"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.storyteller.worlds import ask
from models.storyteller.worlds.make import Settings, told


@dataclass(frozen=True, slots=True)
class Question:
    text: str  # the story and the question
    word: str  # the word by which it asks
    answer: str


def questions(settings: Settings, count: int) -> list[Question]:
    """One question a story, from stories told from outside."""
    found: list[Question] = []
    number = 0
    while len(found) < count:
        rng = random.Random(f"question:{settings.seed}:{number}")
        number += 1
        telling = told(settings, rng)
        if telling.manner.narrator or telling.manner.style == "verse":
            continue
        asked = list(ask.questions(telling, rng))
        if asked:
            question, answer = rng.choice(asked)
            found.append(Question(f"{telling.text}\n\n{question}", question.split()[0].lower(), answer))
    return found


def normal(answer: str) -> str:
    """An answer without capitals, punctuation, articles and what follows its first line."""
    line = next(iter(answer.strip().splitlines()), "")
    words = re.findall(r"[a-z0-9'-]+", line.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def rows(asked: Sequence[Question], answers: Sequence[str]) -> Iterator[tuple[str, str]]:
    right, total = Counter[str](), Counter(question.word for question in asked)
    for question, answer in zip(asked, answers, strict=True):
        right[question.word] += normal(answer) == normal(question.answer)
    yield "questions answered as the events do", f"{sum(right.values())} of {len(asked)}"
    for word, count in total.most_common(4):
        yield f"  of these, {word}", f"{right[word]} of {count}"
