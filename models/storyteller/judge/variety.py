"""How much stories have in common with each other, with the text that was learned from, and with themselves."""

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.storyteller.worlds.near import grams

RUN = 8  # words in a row that are not chance
_WORD = re.compile(r"[a-z0-9'-]+")
BASE = np.uint64(0x9E3779B97F4A7C15)
Ids = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def shared(texts: Sequence[str], size: int = 5) -> list[float]:
    """For each text, the largest part of its n-grams that one other text has, too, where the shorter of the two is the measure."""
    of_text = [grams(text, size) if text else set[int]() for text in texts]
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for number, found in enumerate(of_text):
        for gram in found:
            holders[gram].append(number)
    common = Counter((one, other) for numbers in holders.values() for at, one in enumerate(numbers) for other in numbers[at + 1 :])
    most = [0.0] * len(texts)
    for (one, other), count in common.items():
        share = count / min(len(of_text[one]), len(of_text[other]))
        most[one], most[other] = max(most[one], share), max(most[other], share)
    return most


def repetition(text: str, size: int = 4) -> float:
    """The part of a text's n-grams that stood in it before."""
    words = _WORD.findall(text.lower())
    count = len(words) - size + 1
    return 1 - len({tuple(words[at : at + size]) for at in range(count)}) / count if count > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Copied:
    """What stories have from the training text: the part of their 8-grams that stand in it, and the longest run of words of each."""

    share: float
    longest: list[int]


def copied(texts: Sequence[str], training: Iterable[str]) -> Copied:
    """Look for everything in the stories that is eight words or more and stands in the training text, word for word.

    All runs grow by one word at a time, in the stories and in the training text, and those without their like are dropped.
    """
    vocabulary: dict[str, int] = {}
    stories, ends = _joined(texts, vocabulary, 0)
    learned, _ = _joined(training, vocabulary, 1)
    sizes = np.diff(ends, prepend=0)  # in words, and one more for the mark
    owner, total = np.repeat(np.arange(len(texts)), sizes), int(np.maximum(sizes - RUN, 0).sum())
    here, there = _starts(stories), _starts(learned)
    one, other = _hashes(stories, here), _hashes(learned, there)
    longest, share, length = np.zeros(len(texts), dtype=np.int64), 0.0, RUN
    while len(here) and len(there):
        kept, met = np.isin(one, other), np.isin(other, one)
        here, one, there, other = here[kept], one[kept], there[met], other[met]
        longest[owner[here]] = length
        if length == RUN and total:
            share = len(here) / total
        here, one = _grown(here, one, stories, length)
        there, other = _grown(there, other, learned, length)
        length += 1
    return Copied(share, longest.tolist())


def _joined(texts: Iterable[str], vocabulary: dict[str, int], mark: int) -> tuple[Ids, Places]:
    """The ids of all words with a mark after each text, and where each text ends."""
    ids, ends = array("Q"), array("q")
    for text in texts:
        ids.extend(vocabulary.setdefault(word, len(vocabulary) + 2) for word in _WORD.findall(text.lower()))
        ids.append(mark)
        ends.append(len(ids))
    return np.array(ids, dtype=np.uint64), np.array(ends, dtype=np.int64)


def _starts(ids: Ids) -> Places:
    """Where eight words in a row can begin."""
    return np.arange(max(0, len(ids) - RUN + 1))


def _hashes(ids: Ids, places: Places) -> Ids:
    """One number for the eight words from each place on (a polynomial modulo 2^64)."""
    total = np.zeros(len(places), dtype=np.uint64)
    for offset in range(RUN):
        total = total * BASE + ids[places + offset]
    return total


def _grown(places: Places, hashes: Ids, ids: Ids, length: int) -> tuple[Places, Ids]:
    """Runs that are one word longer; those at the very end are dropped."""
    inside = places + length < len(ids)
    places, hashes = places[inside], hashes[inside]
    return places, hashes * BASE + ids[places + length]


def rows(texts: Sequence[str], training: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """The measures of some stories, by name."""
    most = sorted(shared(texts))
    words = [len(text.split()) for text in texts]
    openings = {" ".join(_WORD.findall(text.lower())[:4]) for text in texts}
    yield "stories, and words in the median", f"{len(texts):,}, {int(np.median(words))}"
    yield "most 5-grams shared by two stories", f"{most[-1]:.1%} (median of the nearest: {most[len(most) // 2]:.1%})"
    yield "stories that share over a third with another", f"{sum(share > 1 / 3 for share in most)}"
    yield "different beginnings of four words", f"{len(openings):,}"
    yield "4-grams said before in the same story", f"{np.mean([repetition(text) for text in texts]):.2%}"
    if training is not None:
        found = copied(texts, training)
        yield "8-grams that stand in the training text", f"{found.share:.1%}"
        yield "longest run from the training text", f"{max(found.longest)} words (median {int(np.median(found.longest))})"
