"""Now and then another word for the same thing, so that a sentence told a thousand times has not the same letters each time."""

import random
import re
from functools import cache

from .book import bank

CHANCE = 0.35


@cache
def _table() -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    groups = [tuple(item.strip() for item in line.split("|")) for line in bank("synonyms")]
    table = {item: group for group in reversed(groups) for item in group}
    longest_first = sorted(table, key=len, reverse=True)
    return re.compile(rf"(?<![\w'-])({'|'.join(map(re.escape, longest_first))})(?![\w'-])", re.IGNORECASE), table


def reword(text: str, rng: random.Random) -> str:
    """The text with some of its phrases exchanged for their like."""
    pattern, table = _table()

    def exchange(match: re.Match[str]) -> str:
        if rng.random() > CHANCE:
            return match[0]
        word = rng.choice(table[match[0].lower()])
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    return pattern.sub(exchange, text)
