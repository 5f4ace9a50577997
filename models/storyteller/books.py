"""Cuts books into documents to learn from: `python -m models.storyteller.books books.jsonl.xz -o pieces.jsonl --held-back held.txt`.

A picture book stays whole. A long book is cut at paragraphs into pieces that fit the model's context. Each document begins with a line
that says where it is from: so a model that is asked for nothing in particular does not go on in the English of old books, or in the broken
lines of picture books.
"""

import argparse
import json
import lzma
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from tgen.files import write_text

OLD_BOOK = "From an old book:\n\n"
PICTURE_BOOK = "From a picture book:\n\n"
PIECE = 3400  # characters: some 900 tokens
HELD_BACK = 20  # one picture book in so many is kept to measure on


def held_back(title: str) -> bool:
    """Whether a picture book is kept to measure on; the title decides, so that no copy of it is learned from."""
    return crc32(title.strip().lower().encode()) % HELD_BACK == 0


def pieces(text: str) -> Iterator[str]:
    """The paragraphs of a book, as many together as a piece holds; one that is longer stands alone."""
    part: list[str] = []
    size = 0
    for paragraph in filter(str.strip, text.split("\n")):
        if part and size + len(paragraph) > PIECE:
            yield "\n".join(part)
            part, size = [], 0
        part.append(paragraph)
        size += len(paragraph) + 1
    if part:
        yield "\n".join(part)


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, which may be packed as .xz."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        yield from file


def _books(paths: list[Path]) -> Iterator[dict[str, str]]:
    for path in paths:
        yield from map(json.loads, lines_of(path))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.books", description=__doc__)
    parser.add_argument("books", type=Path, nargs="+", help="JSON lines with `text` and perhaps `kind` and `title`, plain or .xz")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--held-back", type=Path, required=True, help="where the picture books go that are measured on")
    parser.add_argument("--kinds", default="tale", help="the kinds of long books to take, separated by commas (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="how often a picture book stands in the output (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the pieces of long books to take (default: %(default)s)")
    options = parser.parse_args(arguments)
    documents, cut, held, count = list[str](), list[str](), list[str](), Counter[str]()
    for book in _books(options.books):
        kind, text = book.get("kind", "story"), book["text"].strip()
        if kind in ("picture book", "story"):
            if kind == "picture book" and held_back(book.get("title", "")):
                held.append(text)
                continue
            documents += [PICTURE_BOOK + text] * options.repeat if kind == "picture book" else [text]
        elif kind in options.kinds.split(","):
            cut += [OLD_BOOK + piece for piece in pieces(text)]
        else:
            continue
        count[kind] += 1
    documents += random.Random(1).sample(cut, round(len(cut) * options.share))
    write_text(options.output, "".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in documents))
    write_text(options.held_back, "\n\n".join(held) + "\n")
    words = sum(len(one.split()) for one in documents)
    kinds = ", ".join(f"{number} of the kind {kind}" for kind, number in count.items())
    print(f"{len(documents):,} documents, {words:,} words; {kinds}; {len(held)} held back", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
