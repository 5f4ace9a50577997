"""Now and then another word for the same thing, so that a sentence told a thousand times has not the same letters each time."""

import random
import re
from functools import cache

from .book import bank

CHANCE = 0.85
_NEXT = ("After that", "Next", "Soon", "So", "And then")
_THEN = re.compile(r"(^ ?|[.!?] |\n)Then (?=(?:he|she|they|we|I|the [a-z]+|[A-Z][a-z]+) )")


@cache
def _table() -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    """What finds a phrase that has others like it, and those with itself among them. `named > called` works in one direction only."""
    table: dict[str, tuple[str, ...]] = {}
    for line in bank("synonyms"):
        first, arrow, others = line.partition(" > ")
        group = tuple(item.strip() for item in (others if arrow else line).split("|"))
        for item in (first,) if arrow else group:
            table.setdefault(item.lower(), (first, *group) if arrow else group)
    by_start: dict[str, list[str]] = {}
    for item in sorted(table, key=len, reverse=True):
        by_start.setdefault(item[0], []).append(re.escape(item[1:]))
    starts = "|".join(f"{re.escape(start)}(?:{'|'.join(rests)})" for start, rests in by_start.items() if start.isalpha())
    others = "|".join(f"{re.escape(start)}(?:{'|'.join(rests)})" for start, rests in by_start.items() if not start.isalpha())
    return re.compile(rf"(?:(?<![\w'-])(?:{starts})|{others})(?![\w'-])", re.IGNORECASE), table


def reword(text: str, rng: random.Random) -> str:
    """The text with some of its phrases exchanged for their like."""
    pattern, table = _table()

    def exchange(match: re.Match[str]) -> str:
        if rng.random() > CHANCE:
            return match[0]
        word = rng.choice(table[match[0].lower()])
        if word[0].isalpha() and not match[0][0].isalpha():
            word = " " + word  # ", too" has no space before it, "as well" has
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    return _after_that(pattern.sub(exchange, text), rng)


def _after_that(text: str, rng: random.Random) -> str:
    """Half of the "then" with which the story goes on become other words, each word once. What somebody says stays: "Then go!"."""
    others = [word for word in _NEXT if word.lower() not in text.lower()]
    rng.shuffle(others)

    def exchange(match: re.Match[str]) -> str:
        return f"{match[1]}{others.pop() if others and rng.random() < 0.5 else 'Then'} "

    parts = text.split('"')
    parts[::2] = [_THEN.sub(exchange, part) for part in parts[::2]]
    return '"'.join(parts)
