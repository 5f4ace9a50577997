"""How much stories have in common with each other, with the text that was learned from, and with themselves."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.storyteller.worlds.near import grams

RUN = 8  # words in a row that are not chance
_WORD = re.compile(r"[a-z0-9'-]+")
Ids = npt.NDArray[np.uint64]


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
    """Look for everything in the stories that is eight words or more and stands in the training text, word for word."""
    vocabulary: dict[str, int] = {}
    stories = [_ids(text, vocabulary) for text in texts]
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, ids in enumerate(stories):
        for at, mark in enumerate(_hashes(ids).tolist()):
            places[mark].append((number, at))
    wanted = np.array(sorted(places), dtype=np.uint64)
    found: set[int] = set()
    longest = [0] * len(texts)
    for document in training:
        ids = _ids(document, vocabulary)
        hashes = _hashes(ids)
        for start in np.flatnonzero(np.isin(hashes, wanted)).tolist():
            mark = int(hashes[start])
            found.add(mark)
            for number, at in places[mark]:
                story = stories[number]
                if not (start and at and ids[start - 1] == story[at - 1]):  # else this run was measured from its beginning
                    longest[number] = max(longest[number], _run(ids[start:], story[at:]))
    total = sum(len(place) for place in places.values())
    return Copied(sum(len(places[mark]) for mark in found) / total if total else 0.0, longest)


def _ids(text: str, vocabulary: dict[str, int]) -> Ids:
    return np.array([vocabulary.setdefault(word, len(vocabulary) + 1) for word in _WORD.findall(text.lower())], dtype=np.uint64)


def _hashes(ids: Ids) -> Ids:
    """One number for each eight words in a row (a polynomial modulo 2^64), [words - 7]."""
    count = max(0, len(ids) - RUN + 1)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(RUN):
        total = total * np.uint64(0x9E3779B97F4A7C15) + ids[offset : offset + count]
    return total


def _run(one: Ids, other: Ids) -> int:
    """How many words two texts have in common from their beginning."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


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
