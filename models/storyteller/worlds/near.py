"""Near-duplicates: a story that shares too many of its 5-grams with one earlier story is left out."""

import re
from collections import Counter, defaultdict, deque
from zlib import crc32

_WORD = re.compile(r"[a-z0-9'-]+")
SAMPLE = 6  # one 5-gram of so many is looked at
SHORT = 120  # of a text with fewer 5-grams, all are


def grams(text: str, size: int = 5) -> set[int]:
    """The 5-grams of a text, as numbers."""
    words = _WORD.findall(text.lower())
    return {crc32(" ".join(words[n : n + size]).encode()) for n in range(max(1, len(words) - size + 1))}


def sketch(text: str) -> list[int]:
    """The sample of the 5-grams by which stories are compared: those whose number a divisor chooses, whatever the story."""
    found = grams(text)
    return sorted(found if len(found) < SHORT else (gram for gram in found if gram % SAMPLE == 0))


class Shelf:
    """The stories so far, found by their 5-grams. Of a 5-gram that very many have, the last hundred are kept."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.count = 0
        self._texts: set[int] = set()
        self._holders: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=100))

    def add(self, text: str, sample: list[int]) -> bool:
        """Put a story on the shelf, unless something like it stands there: then False."""
        whole = hash(text)
        shared = Counter(holder for gram in sample for holder in self._holders.get(gram, ()))
        most = max(shared.values(), default=0)
        if whole in self._texts or (most >= 2 and most > self.limit * len(sample)):
            return False
        self._texts.add(whole)
        for gram in sample:
            self._holders[gram].append(self.count)
        self.count += 1
        return True
