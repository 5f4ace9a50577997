"""The book of plots and the word banks: text files in a small notation, read once (README.md describes it)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .template import Parts, parse, words

HERE = Path(__file__).parent
_HEADERS = {"cast", "title", "gist", "about", "why", "moral", "verse", "realm", "scene", "takes", "tellers"}


@dataclass(frozen=True, slots=True)
class Form:
    """One way to tell a moment, and the conditions under which it is true."""

    parts: Parts
    length: int
    conditions: tuple[str, ...] = ()
    apart: bool = False  # speaks of "them" where somebody who was there would say "us"
    others: frozenset[str] = frozenset()  # the letters that cannot be "I" in it, because of "{a} keeps" or "{a}, who"


@dataclass(frozen=True, slots=True)
class Beat:
    """One moment: the events that happen, and the ways to tell them. Optional beats may stay untold and have no events."""

    events: tuple[tuple[str, ...], ...]
    forms: tuple[Form, ...]
    optional: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """Between `least` and `most` of these roads happen, in any order or in the order of the book."""

    roads: tuple[tuple["Node", ...], ...]
    least: int
    most: int
    ordered: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Another section is told in this place, with these letters for its own."""

    name: str
    letters: tuple[str, ...]
    optional: bool


Node = Beat | Branch | Call
_PRESENT = re.compile(r"\{([a-z])(?:\.name)?\} (?:(?:still|always|only|never|now|often) )*([a-z]+s)\b")
_WHO = re.compile(r"\{([a-z])(?:\.name)?\}, who")
_NO_VERBS = {"was", "as", "always", "perhaps", "towards", "sometimes", "unless", "this", "its", "his", "across", "afterwards"}


@dataclass(slots=True)
class Section:
    name: str
    headers: dict[str, list[str]] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()

    def forms(self, header: str) -> list[str]:
        return self.headers.get(header, [])

    def words(self, header: str) -> list[str]:
        return " ".join(self.forms(header)).split()


def read_form(line: str) -> Form:
    """One line: `@condition,condition text` or the text alone."""
    conditions: tuple[str, ...] = ()
    if line.startswith("@"):
        head, line = line[1:].split(" ", 1)
        conditions = tuple(head.split(","))
    parts = parse(line)
    unquoted = re.sub(r'"[^"]*"', "", line)
    mine = any(condition.startswith("me") for condition in conditions)
    apart = not mine and re.search(r"\b(they|them|their|themselves)\b", unquoted, re.IGNORECASE) is not None
    others = frozenset(letter for letter, verb in _PRESENT.findall(unquoted) if verb not in _NO_VERBS) | {*_WHO.findall(unquoted)}
    return Form(parts, words(parts), conditions, apart, others)


def _beat(lines: list[str]) -> Beat | Call:
    optional = lines[0] == "?"
    lines = lines[optional:]
    if lines[0].startswith("+"):
        name, *letters = lines[0][1:].split()
        if len(lines) > 1:
            raise ValueError(f"a blank line is missing after {lines[0]}")
        return Call(name, tuple(letters), optional)
    events = tuple(tuple(event.split()) for line in lines if line.startswith("!") for event in line[1:].split(";"))
    if optional and events:
        raise ValueError(f"an optional beat has events: {lines}")
    return Beat(events, tuple(read_form(line) for line in lines if not line.startswith("!")), optional)


def _nodes(blocks: list[list[str]]) -> tuple[Node, ...]:
    """Read beats up to `or`, `}}` or the end; the blocks are in reverse order."""
    nodes: list[Node] = []
    while blocks and blocks[-1] not in (["or"], ["}}"]):
        lines = blocks.pop()
        if not lines[0].startswith("{{"):
            nodes.append(_beat(lines))
            continue
        least, _, most = lines[0].strip("{> ").partition("-")
        roads = [_nodes(blocks)]
        while blocks.pop() == ["or"]:
            roads.append(_nodes(blocks))
        nodes.append(Branch(tuple(roads), int(least or 1), int(most or least or 1), lines[0].endswith(">")))
    return tuple(nodes)


def read_sections(text: str) -> Iterator[Section]:
    """The sections of one file; raises ValueError on notation that it does not know."""
    for piece in re.split(r"^# ", text, flags=re.M)[1:]:
        name, _, body = piece.partition("\n")
        section = Section(name.strip())
        blocks: list[list[str]] = [[]]
        for line in map(str.strip, body.splitlines()):
            header = re.match(r"(\w+): ", line)
            if header and header[1] in _HEADERS and not any(blocks):
                section.headers.setdefault(header[1], []).append(line[header.end() :])
            elif line in ("or", "}}") or re.fullmatch(r"\{\{[ \d-]*>?", line):
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
    """Every section of every file, by name."""
    found: dict[str, Section] = {}
    for path in sorted((HERE / "plots").glob("*.txt")):
        for section in read_sections(path.read_text(encoding="utf-8")):
            if section.name in found:
                raise ValueError(f"two sections are called {section.name}")
            found[section.name] = section
    return found


@cache
def plots() -> tuple[Section, ...]:
    """The sections that are stories of their own: those with a title."""
    return tuple(section for section in sections().values() if section.forms("title"))


@cache
def family(name: str) -> tuple[Section, ...]:
    """The sections that a call can mean: `detour` is any of `detour/bridge`, `detour/rain` and so on."""
    found = tuple(section for key, section in sections().items() if key == name or key.startswith(name + "/"))
    if not found:
        raise ValueError(f"no section is called {name}")
    return found


@cache
def bank(name: str) -> tuple[str, ...]:
    """One list of words or sentences: what stands under `# name`; a `# name, commas` heading has several on a line."""
    return _banks()[name]


@cache
def bank_forms(name: str) -> tuple[Form, ...]:
    return tuple(map(read_form, bank(name)))


@cache
def header_forms(lines: tuple[str, ...]) -> tuple[Form, ...]:
    return tuple(map(read_form, lines))


@cache
def _banks() -> dict[str, tuple[str, ...]]:
    return {name: items for banks in _files().values() for name, items in banks.items()}


@cache
def _files() -> dict[str, dict[str, tuple[str, ...]]]:
    """The banks of each file."""
    files: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in sorted((HERE / "words").glob("*.txt")):
        banks = files.setdefault(path.stem, {})
        for piece in re.split(r"^# ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            heading, _, body = piece.partition("\n")
            name, _, commas = heading.strip().partition(", ")
            lines = [line.strip() for line in body.splitlines() if line.strip()]
            banks[name] = tuple(item.strip() for line in lines for item in (line.split(",") if commas else [line]) if item.strip())
    return files


@cache
def bank_names(file: str = "") -> frozenset[str]:
    """The names of all banks, or of those in one file."""
    return frozenset(_files()[file] if file else _banks())
