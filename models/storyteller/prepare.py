"""The text of the last part of the story writer's training: `python prepare.py stories.jsonl learn.jsonl held-back.jsonl`.

Whole books teach sentences; a story's beginning and its end drown in them. So collections are cut into their tales, headings and front
matter left out, and the broken lines of picture books joined; both count twice, of the novels every fourth stays. What `tgen train` held
back of the whole books is held back here too, as it is, so that the figures can be compared.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tgen.train.corpus import split_documents

HELD_BACK = 0.02
COLLECTIONS = re.compile(
    r"Fairy (Book|Tales|Stories)|Folk Stories|Animal Story|Household Stories|Snowdrop|Aesop|Stories (from|for)|Series of Stories|Ice-Maiden"
    r"|Jutland|Greeting|Goose|Pussy and Doggy|Unlikely|Book of Dragons|Magic World|Magic Ring|Tales of Romance|Beatrix Potter|Strange Story"
    r"|Book of Romance|Arabian|Little Wizard Stories|Tale of|Conceited Pig|Princess Nobody|Two Bad Mice|Tailor of"
)
CAPTION = re.compile(r"[\[{].*[\]}]$")
WORD_OF_BOOKS = re.compile(r"(chapter|part|book|story|fable|footnote|note|illustration|page|the end|contents)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?:;,\"'\-\u201d\u2019_)]$")
NOT_A_TALE = re.compile(r"\(?(from the|translated|copyright|\[)", re.IGNORECASE)
FIRST_WORDS = re.compile(r"^([\"'\u201c\u2018]?)((?:[A-Z]+\b[ ,]*)+)(?=[a-z ,'-]|[A-Z][a-z])")


def tales(book: str) -> Iterator[str]:
    """The tales of a collection: what stands between headings, if it is long enough and reads like prose."""
    lines = book.split("\n")
    parts: list[list[str]] = [[]]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if CAPTION.match(line.strip()):
            continue
        if is_heading(line.strip(), following):
            parts.append([])
        else:
            parts[-1].append(line.strip())
    for part in parts:
        tale = "\n".join(part).strip()
        if len(tale) < 400 or sum(map(len, part)) <= 60 * len(part) or (NOT_A_TALE.match(tale) and len(tale) < 1500):
            continue
        yield FIRST_WORDS.sub(as_in_a_sentence, tale, count=1)


def is_heading(line: str, following: str) -> bool:
    """A line of its own between two tales, or between the parts of one; empty lines and rows of stars count too."""
    if not re.search(r"[A-Za-z]", line):
        return not re.search(r"[^\W\d_]", line)
    if len(line) > 90:
        return False
    if not re.search(r"[a-z]{3}", line):
        return True
    if len(line) >= 60:
        return False
    if WORD_OF_BOOKS.match(line):
        return True
    return line[0].isupper() and not SENTENCE_END.search(line) and len(following) > 120


def as_in_a_sentence(words: re.Match[str]) -> str:
    """`ONCE UPON a time` begins like any other sentence."""
    quote, capitals = words.groups()
    return quote + (capitals[0] + capitals[1:].lower() if re.search(r"[A-Z]{2}", capitals) else capitals)


def picture_book(title: str, text: str) -> str:
    """Its sentences: without the title, the lines of a page joined where they break within one."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and lines[0].lower() == title.strip().lower():
        lines = lines[1:]
    joined = lines[:1]
    for line in lines[1:]:
        if re.search(r"[.!?:\"\u201d'\u2019]$", joined[-1]):
            joined.append(line)
        else:
            joined[-1] += " " + line
    return "\n".join(joined)


def main() -> None:
    source, learn, held_back = map(Path, sys.argv[1:])
    books = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line]
    held = set(split_documents([book["text"] for book in books], HELD_BACK)[1])
    books = [book for book in books if book["text"] not in held]
    twice = [tale for book in books if book["kind"] == "tale" and COLLECTIONS.search(book["title"]) for tale in tales(book["text"])]
    twice += [picture_book(book["title"], book["text"]) for book in books if book["kind"] == "picture book"]
    once = [book["text"] for book in books if book["kind"] == "tale" and not COLLECTIONS.search(book["title"])]
    once += [book["text"] for book in books if book["kind"] == "novel"][::4]
    for path, documents in ((learn, twice * 2 + once), (held_back, sorted(held))):
        path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents), "utf-8")


if __name__ == "__main__":
    main()
