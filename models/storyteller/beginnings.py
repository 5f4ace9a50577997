"""Gathers the beginnings of stories: `python -m models.storyteller.beginnings stories.jsonl -o beginnings.jsonl`.

How a story goes on after the few words that somebody typed is the hardest part of it, and in whole stories it is a fifth of the text. Here
only the first sentences of each story stand, several stories a document, so that a model meets each kind of opening several times as often.
"""

import argparse
import json
import random
import re
import sys
from pathlib import Path

from models.storyteller.worlds.ask import SMALL
from tgen.files import write_text

BETWEEN = "\n\n* * *\n\n"
TOGETHER = 8  # beginnings in a document
WORDS = 45  # a beginning ends with the sentence in which it reaches so many words
_SENTENCE = re.compile(r'.+?[.!?]"?(?=\s|$)', re.DOTALL)


def beginning(text: str) -> str:
    """The first sentences of a story."""
    part = ""
    for match in _SENTENCE.finditer(text):
        part += match[0]
        if len(part.split()) >= WORDS and part.count('"') % 2 == 0:
            break
    return part


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.beginnings", description=__doc__)
    parser.add_argument("stories", type=Path, nargs="+", help="files that python -m models.storyteller.worlds wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    records = [json.loads(line) for path in options.stories for line in path.read_text(encoding="utf-8").splitlines()]
    long = [one["text"] for one in records if one["kind"] in ("story", "wish", "title") and len(one["text"].split()) >= SMALL]
    found = [beginning(text) for text in long]
    random.Random(1).shuffle(found)
    documents = [BETWEEN.join(found[at : at + TOGETHER]) for at in range(0, len(found), TOGETHER)]
    write_text(options.output, "".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in documents))
    print(f"{len(found):,} beginnings in {len(documents):,} documents, {sum(len(one.split()) for one in found):,} words", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
