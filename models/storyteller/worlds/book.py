"""The book of plots: text files in a small notation, read once (README.md describes it)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .template import Parts, parse, words

HERE = Path(__file__).parent
_HEADERS = {"cast", "title", "gist", "about", "why", "moral", "verse", "for", "home"}


@dataclass(frozen=True, slots=True)
class Beat:
    """One moment: the events that happen, and the ways to tell them. Optional beats may stay untold and have no events."""

    events: tuple[str, ...]
    texts: tuple[tuple[str, Parts, int], ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class Branch:
    roads: tuple[tuple["Node", ...], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """Another section told in this place, with these letters for its own."""

    name: str
    letters: tuple[str, ...]
    optional: bool


Node = Beat | Branch | Call


@dataclass(slots=True)
class Section:
    name: str
    headers: dict[str, list[str]] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def forms(self, header: str) -> list[str]:
        return self.headers.get(header, [])


def _beat(lines: list[str]) -> Beat | Call:
    optional = lines[0] == "?"
    lines = lines[optional:]
    if lines[0].startswith("+"):
        name, *letters = lines[0][1:].split()
        return Call(name, tuple(letters), optional)
    events = tuple(event.strip() for line in lines if line.startswith("!") for event in line[1:].split(";"))
    texts = []
    for line in lines:
        if line.startswith("!"):
            continue
        style, text = line[1:].split(" ", 1) if line.startswith("@") else ("", line)
        parts = parse(text)
        texts.append((style, parts, words(parts)))
    if optional and events:
        raise ValueError(f"an optional beat has events: {lines}")
    return Beat(events, tuple(texts), optional)


def _nodes(blocks: list[list[str]]) -> tuple[Node, ...]:
    """Read beats up to `or`, `}}` or the end; the blocks are in reverse order."""
    nodes: list[Node] = []
    while blocks and blocks[-1] not in (["or"], ["}}"]):
        lines = blocks.pop()
        if lines != ["{{"]:
            nodes.append(_beat(lines))
            continue
        roads = [_nodes(blocks)]
        while blocks.pop() == ["or"]:
            roads.append(_nodes(blocks))
        nodes.append(Branch(tuple(roads)))
    return tuple(nodes)


def read_sections(text: str) -> Iterator[Section]:
    """The sections of one file; raises ValueError on notation that it does not know."""
    for piece in re.split(r"^# ", text, flags=re.M)[1:]:
        name, _, body = piece.partition("\n")
        section = Section(name.strip())
        blocks: list[list[str]] = [[]]
        for line in body.splitlines():
            line = line.strip()
            header = re.match(r"(\w+): ", line)
            if header and header[1] in _HEADERS:
                section.headers.setdefault(header[1], []).append(line[header.end() :])
            elif line in ("{{", "or", "}}"):
                blocks += [[line], []]
            elif line:
                blocks[-1].append(line)
            elif blocks[-1]:
                blocks.append([])
        blocks = [block for block in reversed(blocks) if block]
        try:
            section.nodes = _nodes(blocks)
            if blocks:
                raise ValueError(f"{blocks[-1][0]} has no beginning")
        except (ValueError, IndexError) as error:
            raise ValueError(f"section {section.name}: {error}") from None
        yield section


@cache
def sections() -> dict[str, Section]:
    """Every section of every file, by name: plots have a cast, others are parts that plots call."""
    found: dict[str, Section] = {}
    for path in sorted((HERE / "plots").glob("*.txt")):
        for section in read_sections(path.read_text(encoding="utf-8")):
            if section.name in found:
                raise ValueError(f"two sections are called {section.name}")
            found[section.name] = section
    return found


@cache
def plots() -> tuple[Section, ...]:
    return tuple(section for section in sections().values() if section.forms("cast"))


@cache
def bank(name: str) -> tuple[str, ...]:
    """One list of words: the lines of `words/*.txt` under the heading `# name`, parted by commas where they have no bar."""
    return _banks()[name]


@cache
def _banks() -> dict[str, tuple[str, ...]]:
    banks: dict[str, tuple[str, ...]] = {}
    for path in sorted((HERE / "words").glob("*.txt")):
        for piece in re.split(r"^# ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            name, _, body = piece.partition("\n")
            lines = [line.strip() for line in body.splitlines() if line.strip()]
            items = [item.strip() for line in lines for item in ([line] if "|" in line else line.split(","))]
            banks[name.strip()] = tuple(item for item in items if item)
    return banks
