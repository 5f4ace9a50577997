"""Wishes for stories with three words: does the story hold them?"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.storyteller.worlds import ask
from models.storyteller.worlds.make import Settings, told


@dataclass(frozen=True, slots=True)
class Wish:
    text: str
    words: tuple[str, ...]


def wishes(settings: Settings, count: int) -> list[Wish]:
    """Wishes with words that can stand in one story, since they stood in one of the generator's."""
    found = []
    for number in range(count):
        rng = random.Random(f"wish:{settings.seed}:{number}")
        words = ask.three_words(told(settings, rng), rng)
        found.append(Wish(ask.words_wish(words, rng), words))
    return found


def kept(wish: Wish, story: str) -> int:
    """How many of the words the story has."""
    return sum(re.search(rf"\b{re.escape(word)}\b", story, re.IGNORECASE) is not None for word in wish.words)


def rows(asked: Sequence[Wish], stories: Sequence[str]) -> Iterator[tuple[str, str]]:
    counts = [(kept(wish, story), len(wish.words)) for wish, story in zip(asked, stories, strict=True)]
    yield "wishes whose words all are in the story", f"{sum(have == all_ for have, all_ in counts)} of {len(counts)}"
    yield "words wished for that are in the story", f"{sum(have for have, _ in counts) / sum(all_ for _, all_ in counts):.1%}"
