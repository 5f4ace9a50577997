"""The notation of sentences: `[one|two]` is a choice, `{a's}` refers to something in the story, `{.snack}` draws from a word bank."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference: the letters of what is meant (none for a word bank), and the form in which it is to be written."""

    letters: str
    form: str


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple["Parts", ...]


Part = str | Ref | Choice
Parts = tuple[Part, ...]
_TOKEN = re.compile(r"\{[^{}]*\}|[\[\]|]|[^\[\]|{}]+")
_REF = re.compile(r"\{([a-z]*)('s|~|\.[\w-]+|)\}")


def _read(tokens: list[str], source: str) -> tuple[Parts, ...]:
    """Read alternatives up to the closing bracket or the end; the tokens are in reverse order."""
    options: list[Parts] = []
    parts: list[Part] = []
    while tokens:
        token = tokens.pop()
        if token == "[":
            parts.append(Choice(_read(tokens, source)))
            if not tokens or tokens.pop() != "]":
                raise ValueError(f"a bracket is not closed: {source}")
        elif token == "]":
            tokens.append(token)
            break
        elif token == "|":
            options.append(tuple(parts))
            parts = []
        elif token.startswith("{"):
            match = _REF.fullmatch(token)
            if match is None or token == "{}":
                raise ValueError(f"{token} is no reference: {source}")
            parts.append(Ref(match[1], match[2].lstrip(".")))
        else:
            parts.append(token)
    options.append(tuple(parts))
    return tuple(options)


@cache
def parse(source: str) -> Parts:
    """The parts of one sentence form; raises ValueError on notation that it does not know."""
    tokens = _TOKEN.findall(source)
    if "".join(tokens) != source:
        raise ValueError(f"a brace is not closed: {source}")
    tokens.reverse()
    options = _read(tokens, source)
    if tokens or len(options) != 1:
        raise ValueError(f"a bracket or bar stands alone: {source}")
    return options[0]


def choose(parts: Parts, rng: random.Random) -> Iterator[str | Ref]:
    """Take one way through every choice."""
    for part in parts:
        if isinstance(part, Choice):
            yield from choose(part.options[int(rng.random() * len(part.options))], rng)
        else:
            yield part


def references(parts: Parts) -> Iterator[Ref]:
    """Every reference in every choice."""
    for part in parts:
        if isinstance(part, Choice):
            for option in part.options:
                yield from references(option)
        elif isinstance(part, Ref):
            yield part


def ways(parts: Parts) -> int:
    """How many different texts the parts can give, the references aside."""
    count = 1
    for part in parts:
        if isinstance(part, Choice):
            count *= sum(ways(option) for option in part.options)
    return count


def words(parts: Parts) -> int:
    """About how many words the parts give."""
    count = 0
    for part in parts:
        if isinstance(part, Choice):
            count += sum(words(option) for option in part.options) // len(part.options)
        else:
            count += 1 if isinstance(part, Ref) else part.count(" ")
    return count
