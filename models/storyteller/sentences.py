"""Finds sentences with which a story can begin: `python -m models.storyteller.sentences FILE... -o sentences.json`.

A model that knows only the openings of a generator writes nonsense after any other one. These openings are sentences that people wrote,
about anything: simple ones from picture books, stories and lists of sentences. The generator (`worlds --sentences`) puts one of them before
a story, with a few words that lead from any sentence to the story. A model learns these words, and how a sentence goes on that somebody
began.

A file is `.jsonl` with `text` (where there is a `kind`, only picture books are taken), or `.tsv` with a sentence in the first column; it
may be packed as `.xz`. The output is JSON: `named` holds lines about the hero in the generator's notation ("{a.name} had a red ball."),
`sorts` those about a hero of one sort, by its noun ("One day {a.a} hopped out of the pond." for a frog), `free` those about anything else.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.storyteller.books import held_back, lines_of
from models.storyteller.worlds.cast import animals
from tgen.files import write_text

SHORTEST, LONGEST = 3, 16  # words
SIMPLE = 4  # a word that stories for children use so often is simple
NAMED = 3  # a word with a capital inside so many sentences is a name
KINDS = {"", "picture book"}

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]")
_WORD = re.compile(r"[A-Za-z']+")
_NO_NAMES = set(
    "I I'm I'll Mom Dad Mum Mummy Mommy Daddy Mama Papa Mr Mrs Miss Dr Doctor Sir God Sun Moon Earth Christmas Santa TV English Africa "
    "India Grandma Grandpa Granny Grandmother Grandfather Mother Father Teacher Uncle Aunt King Queen Prince Princess "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday "
    "January February March April May June July August September October November December "
    "O Oh No Yes Hello Hi Thank Please Let Look Come Why What When Where Who How This The A But And Can Do You He She It We They Once "
    "One".split()
)
_FIRST = set(
    "The A An One Once In On At Every Each There Deep Far Long Many Some All Everyone Everybody Nobody Two Three Under Near Behind High "
    "Outside Inside When After Before Suddenly Soon Today Yesterday Up Down Across By From Over During".split()
)
_PAST = re.compile(
    r"\b(was|were|had|did|went|came|saw|took|made|got|gave|found|ran|fell|lost|stood|sat|kept|told|left|ate|bought|broke|wrote|sang|knew|"
    r"thought|felt|heard|met|brought|caught|began|flew|swam|drew|built|woke|grew|held|slept|put|hid|blew|shone|rang|[a-z]{3,}ed)\b"
)
# Who speaks or is spoken to, what is so now, people whom nothing has introduced, what leans on a sentence before, and what is not for
# children.
_UNFIT = re.compile(
    r"\b(I|I'\w+|you|your|yours|we|our|us|my|me|mine|they|their|them|him|himself|herself|hers|it|its|this|these|that|those|"
    r"is|are|has|have|will|won't|can|can't|must|may|should|isn't|"
    r"mom|dad|mommy|daddy|mum|mama|papa|boys|girls|son|daughter|wife|husband|"
    r"then|again|also|instead|too|another|other|twin|scales?|tail|wings?|"
    r"die[ds]?|dying|dead|thie(?:f|ves)|kill\w*|blood|gun|married|beer|wine|drunk|police|knife|hell|sex\w*|naked|shot|licen[sc]e)\b"
    r"|[0-9:;\"*()\u2013\u2014_\[\]{}|]|--",
    re.IGNORECASE,
)
_SPEAKS = re.compile(r"^\{a\.\w+\} (?:said|exclaimed|replied|asked|answered|shouted|agreed)\b")
_INTRODUCED = re.compile(r"\b[Aa]n? (?:[a-z]+ ){0,2}[a-z]+ (?:named|called) [A-Z][a-z]+")
_HERS = r"\bher(?=[.,!]| (?:to|in|on|at|and|for|with|from|a|the|up|down|so|very|by|how|what|why|when|if|was|is|out|away|back|as|but|not)\b)"
_CHILD = ("boy", "girl", "child", "kid")
_GROWN = re.compile(r"\b(man|woman|lady|princess|prince)\b")


class Reader:
    """Knows which words are simple, which are names, and which nouns a hero can have."""

    def __init__(self, stories: Iterable[str], nouns: Iterable[str]) -> None:
        """`stories` are texts for children; `nouns` are those of the generator's animals."""
        small, capital = Counter[str](), Counter[str]()
        for story in stories:
            for sentence in sentences(story):
                for place, word in enumerate(_WORD.findall(sentence)):
                    if word[0].islower():
                        small[word] += 1
                    elif place:
                        capital[word] += 1
        self._simple = {word for word, count in small.items() if count >= SIMPLE}
        self._names = {word for word, count in capital.items() if count >= NAMED and small[word.lower()] < count} - _NO_NAMES
        self._noun = re.compile(rf"\b(?:an?|the|one) (?:[a-z]+ ){{0,2}}?({'|'.join(map(re.escape, [*nouns, *_CHILD]))})\b", re.IGNORECASE)

    def read(self, sentence: str) -> tuple[str, str] | None:
        """Where a sentence belongs ("named", "free", or a noun) and its line; None for one that cannot begin a story."""
        words = _WORD.findall(sentence)
        if not SHORTEST <= len(words) <= LONGEST or not _PAST.search(sentence) or _UNFIT.search(sentence) or _GROWN.search(sentence):
            return None
        line, sort = self._about_hero(sentence)
        if line is None:
            return None
        told = "{a." in line
        if re.search(r"\b(he|she|his|her)\b", line, re.IGNORECASE):
            if not told or re.search(r"\b(?:He|She|His|Her)\b", line) or re.search(_HERS, line):
                return None
            line = re.sub(r"\b(?:he|she)\b", "{a}", line)
            line = re.sub(r"\b(?:his|her)\b", "{a's}", line)
        rest = _WORD.findall(re.sub(r"\{[^}]*\}", "", line))
        begun = line.startswith("{a.")
        if _SPEAKS.match(line) or not (begun or rest[0] in _FIRST):
            return None
        if any(word not in self._simple for word in (rest if begun else rest[1:])):
            return None
        return sort or ("named" if told else "free"), line

    def _about_hero(self, sentence: str) -> tuple[str | None, str]:
        """The sentence with the hero in the place of the one whom it names or introduces, and the hero's noun if that matters."""
        line, introduced = _INTRODUCED.subn("{a.intro}", sentence)
        names = {word for word in _WORD.findall(line) if word in self._names}
        nouns = [] if introduced or names else self._noun.findall(line)
        if introduced + len(names) + len(nouns) > 1:
            return None, ""
        if names:
            return re.sub(rf"\b{names.pop()}\b", "{a.name}", line), ""
        if nouns:
            noun = nouns[0].lower()
            return self._noun.sub("{a.a}", line), "child" if noun in _CHILD else noun
        return re.sub(r"^(?:He|She)(?= [a-z])", "{a.name}", line), ""


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, with plain quotes and single spaces."""
    text = text.translate({0x2019: "'", 0x201C: '"', 0x201D: '"'})
    for match in _SENTENCE.finditer(text):
        yield " ".join(match[0].split()).strip(' "')


def texts(path: Path) -> Iterator[str]:
    """The texts of a file that people wrote for children, or its lines of a sentence each."""
    for line in lines_of(path):
        if ".tsv" in path.suffixes:
            yield line.partition("\t")[0]
        elif (record := json.loads(line)).get("kind", "") in KINDS and not ("title" in record and held_back(record["title"])):
            yield record["text"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.sentences", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help=".jsonl or .tsv, plain or .xz")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    found = {path: list(texts(path)) for path in options.files}
    stories = (text for path, some in found.items() if ".jsonl" in path.suffixes for text in some)
    reader = Reader(stories, animals())
    lines: defaultdict[str, set[str]] = defaultdict(set)
    for sentence in {one for some in found.values() for text in some for one in sentences(text)}:
        if (read := reader.read(sentence)) is not None:
            lines[read[0]].add(read[1])
    sorts = {noun: sorted(some) for noun, some in sorted(lines.items()) if noun not in ("named", "free")}
    answer = {"named": sorted(lines["named"]), "free": sorted(lines["free"]), "sorts": sorts}
    write_text(options.output, json.dumps(answer, indent=0, ensure_ascii=False) + "\n")
    print(
        f"{len(answer['named']):,} of a hero, {sum(map(len, sorts.values())):,} of a sort of hero, {len(answer['free']):,} others",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
