"""Writes stories, wishes and questions as JSON lines: `python -m models.storyteller.worlds --words 1000000 --seed 1 -o stories.jsonl`."""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import ask
from .book import plots
from .near import Shelf, sketch
from .simulate import simulate
from .tell import Sentences, Telling, brief, extras_of, manner_of, size_of, tell, verse
from .world import ImpossibleError

CHUNK = 200
EXTRAS = 0.22  # how many stories have words in them that only a wish brings in


@dataclass(frozen=True, slots=True)
class Settings:
    seed: int
    names: tuple[str, ...]
    questions: float
    sentences: Path | None = None  # what `models.storyteller.sentences` wrote


@dataclass(frozen=True, slots=True)
class Made:
    """One story with the wish that it answers and what is asked about it, and the sample by which near-duplicates are found."""

    record: ask.Record
    asked: tuple[ask.Asked, ...]
    text: str
    sample: list[int]


def told(settings: Settings, rng: random.Random) -> Telling:
    """One story of any of the plots. Raises RuntimeError where twenty in a row cannot be told."""
    chosen = {section.name: section for section in plots()}
    for _ in range(20):
        try:
            size, detail = size_of(rng)
            story = simulate(chosen[rng.choice(settings.names)], rng, detail)
            story.tales = settings.names
            chance = rng.random()
            if chance < 0.12:
                return brief(story, rng)
            poem = verse(story, rng) if chance < 0.15 else None
            extras = extras_of(story, rng) if rng.random() < EXTRAS else []
            telling = poem or tell(story, manner_of(story, rng, size), rng, extras, _sentences(settings.sentences))
            if len(telling.text.split()) <= 420:
                return telling
        except (ImpossibleError, LookupError):  # a cast for which this plot has no way: another one is drawn
            continue
    raise RuntimeError("twenty stories in a row could not be told")


@cache
def _sentences(path: Path | None) -> Sentences | None:
    return None if path is None else Sentences(**json.loads(path.read_text(encoding="utf-8")))


def make(settings: Settings, number: int) -> Made:
    """The story of this number: the same for the same settings, whoever makes it."""
    rng = random.Random(f"{settings.seed}:{number}")
    telling = told(settings, rng)
    about = {"plot": telling.story.plot.name, "style": telling.manner.style}
    record = ask.before(telling, rng)
    asked = ask.after(telling, rng) if rng.random() < settings.questions else []
    return Made({"kind": record["kind"]} | about | record, tuple(asked), telling.text, sketch(telling.text))


def _chunk(settings: Settings, start: int) -> list[Made]:
    return [make(settings, number) for number in range(start, start + CHUNK)]


def made(settings: Settings, processes: int) -> Iterator[Made]:
    """Story after story, in order, without end; with several processes, faster."""
    if processes == 1:
        number = 0
        while True:
            yield make(settings, number)
            number += 1
    with ProcessPoolExecutor(processes) as pool:
        waiting = [pool.submit(_chunk, settings, n * CHUNK) for n in range(processes * 2)]
        start = len(waiting) * CHUNK
        try:
            while True:
                yield from waiting.pop(0).result()
                waiting.append(pool.submit(_chunk, settings, start))
                start += CHUNK
        finally:
            pool.shutdown(cancel_futures=True)


def chosen(only: list[str], held_out: list[str]) -> tuple[str, ...]:
    """The names of the plots to draw from; raises ValueError on a name that is none."""
    names = [section.name for section in plots()]
    unknown = sorted({*only, *held_out} - set(names))
    if unknown:
        raise ValueError(f"no plot is called {', '.join(unknown)}; there are: {', '.join(names)}")
    return tuple(name for name in names if name not in held_out and (not only or name in only))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.worlds", description=__doc__)
    parser.add_argument("--words", type=int, default=100_000, help="how many words of stories (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, help="a file (default: standard output)")
    parser.add_argument("--hold-out", default="", metavar="PLOTS", help="plots to leave out, separated by commas")
    parser.add_argument("--only", default="", metavar="PLOTS", help="plots to draw from, separated by commas (default: all)")
    parser.add_argument(
        "--questions", type=float, default=0.25, help="for what part of the stories there are questions, too (default: %(default)s)"
    )
    parser.add_argument(
        "--sentences", type=Path, help="sentences that people wrote, to begin stories with: see models.storyteller.sentences"
    )
    parser.add_argument("--limit", type=float, default=0.36, help="a story that shares more of its 5-grams with an earlier one is left out")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        names = chosen(*([name for name in text.split(",") if name] for text in (options.only, options.hold_out)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shelf, kinds, words, dropped, began = Shelf(options.limit), Counter[str](), 0, Counter[str](), time.monotonic()
    out = options.output.open("w", encoding="utf-8") if options.output else sys.stdout
    stream = made(Settings(options.seed, names, options.questions, options.sentences), options.processes)
    for one in stream:
        if not shelf.add(one.text, one.sample):
            dropped[one.record["plot"]] += 1
            if sum(dropped.values()) > 1000 + 20 * shelf.count:
                print("warning: nearly every new story is like an earlier one; these plots are exhausted", file=sys.stderr)
                break
            continue
        kinds.update((one.record["kind"], *(asked["kind"] for asked in one.asked)))
        print(json.dumps({**one.record, "asked": one.asked}, ensure_ascii=False), file=out)
        words += len(one.text.split())
        if words >= options.words:
            break
    stream.close()  # type: ignore[attr-defined]
    if options.output:
        out.close()
    seconds = time.monotonic() - began
    print(
        f"{words:,} words in {shelf.count:,} stories ({dict(kinds)}), {sum(dropped.values()):,} near-duplicates left out, "
        f"{words / seconds * 60:,.0f} words a minute",
        file=sys.stderr,
    )
    return 0
