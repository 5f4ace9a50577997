"""What can be wrong in a plot is found here: letters that nobody is cast for, moments that cannot be told."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from .book import Beat, Branch, Call, Form, Node, Section, bank_names, family, plots, read_form, sections
from .simulate import simulate
from .tell import Manner, gist, manner_of, size_of, tell, title
from .template import references
from .world import ImpossibleError

CHARACTER_FORMS = {
    "",
    "him",
    "'s",
    "hers",
    "self",
    "name",
    "who",
    "intro",
    "a",
    "the",
    "noun",
    "trait",
    "hand",
    "home",
    "look",
    "show",
    "she",
    "himself",
    "call",
    "sign",
}


def beats(nodes: tuple[Node, ...]) -> Iterator[Beat]:
    for node in nodes:
        if isinstance(node, Beat):
            yield node
        elif isinstance(node, Branch):
            for road in node.roads:
                yield from beats(road)


def calls(nodes: tuple[Node, ...]) -> Iterator[Call]:
    for node in nodes:
        if isinstance(node, Call):
            yield node
        elif isinstance(node, Branch):
            for road in node.roads:
                yield from calls(road)


def cast_of(section: Section) -> dict[str, str]:
    """The letters of a section, with the role of each ("" for those that the caller gives)."""
    entries = (entry.split() for entry in " ".join(section.forms("cast")).split(";") if entry.strip())
    return dict.fromkeys(section.words("takes"), "") | {letter: role for letter, role, *_ in entries}


def _lines(section: Section) -> Iterator[Form]:
    for header in ("title", "gist", "about", "moral", "verse"):
        yield from map(read_form, section.forms(header))
    for line in section.forms("why"):
        yield from map(read_form, line.split(" | "))
    for beat in beats(section.nodes):
        yield from beat.forms


def faults(section: Section) -> Iterator[str]:
    """What is wrong in the text of one section."""
    cast = cast_of(section)
    for form in _lines(section):
        for ref in references(form.parts):
            if not ref.letters and ref.form not in ("scene", "tale") and ref.form.rstrip("0123456789") not in bank_names():
                yield f"{section.name}: there is no word bank {ref.form}"
            for letter in ref.letters:
                if letter not in cast:
                    yield f"{section.name}: nobody is cast as {letter}"
            if len(ref.letters) == 1 and cast.get(ref.letters) in ("hero", "friend") and ref.form not in CHARACTER_FORMS:
                yield f"{section.name}: a character has no form {ref.form}"
    for call in calls(section.nodes):
        if any(len(part.words("takes")) != len(call.letters) for part in family(call.name)):
            yield f"{section.name}: {call.name} takes other letters"


def all_faults() -> list[str]:
    """What is wrong in any section by its text alone."""
    return [fault for section in sections().values() for fault in faults(section)]


def play(section: Section, times: int, seed: int = 0) -> Counter[str]:
    """Simulate and tell a plot many times; count what went wrong."""
    wrong: Counter[str] = Counter()
    tellers = section.words("tellers") or ["a"]
    for n in range(times):
        rng = random.Random(f"{seed}:{section.name}:{n}")
        try:
            size, detail = size_of(rng)
            story = simulate(section, rng, detail)
            manner = manner_of(story, rng, size)
            if n % 3 == 0:
                manner = replace(manner, narrator=rng.choice(tellers) if tellers != ["none"] else "")
            tell(story, manner if n % 5 else Manner(), rng)
            title(story, rng)
            gist(story, rng)
        except (ImpossibleError, LookupError) as error:
            wrong[f"{type(error).__name__}: {error!s:.200}"] += 1
    return wrong


def main(times: int = 60, name: str = "") -> int:
    found = all_faults()
    for section in plots():
        if section.name.startswith(name):
            found += [f"{section.name}: {count} of {times}: {fault}" for fault, count in play(section, times).items()]
    print("\n".join(found) or f"{len(plots())} plots: nothing wrong")
    return 1 if found else 0


if __name__ == "__main__":
    import sys

    raise SystemExit(main(name=sys.argv[1] if len(sys.argv) > 1 else ""))
