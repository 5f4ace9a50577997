"""Turns story worlds into lines to learn from: `python -m models.storyteller.chats stories.jsonl -o training.jsonl`.

A story that answers nothing becomes `{"text": ...}`; one that answers a wish, or about which something is asked, becomes
`{"messages": [...]}`. `tgen train` reads both.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.storyteller.worlds.ask import SMALL
from tgen.files import write_text

Line = dict[str, Any]
SEED = 3


def line(record: Line) -> Line:
    """What a model learns from one record of `models.storyteller.worlds`: a text, or a conversation that ends with an answer."""
    asked = [(one["question"], one["answer"]) for one in record["asked"]]
    if record["prompt"]:
        turns = [(record["prompt"], record["text"]), *asked]
    elif asked:
        (question, answer), *others = asked
        turns = [(f"{record['text']}\n\n{question}", answer), *others]
    else:
        return {"text": record["text"]}
    said = [message for question, answer in turns for message in (("user", question), ("assistant", answer))]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def _lines(paths: list[Path], plain: float) -> Iterator[Line]:
    rng = random.Random(SEED)
    for path in paths:
        for text in path.read_text(encoding="utf-8").split("\n"):
            if text.strip():
                record = json.loads(text)
                if record["kind"] == "wish" and len(record["text"].split()) >= SMALL and rng.random() < plain:
                    record["prompt"] = ""
                yield line(record)


def words(one: Line) -> int:
    """How many words a line has."""
    contents = [one["text"]] if "text" in one else [message["content"] for message in one["messages"]]
    return sum(len(content.split()) for content in contents)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.storyteller.chats", description=__doc__)
    parser.add_argument("stories", type=Path, nargs="+", help="files that python -m models.storyteller.worlds wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--plain", type=float, default=0.0, help="for what share of the wishes the story stands alone (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    lines = list(_lines(options.stories, options.plain))
    write_text(options.output, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    count: Counter[str] = Counter()
    for one in lines:
        count[next(iter(one))] += words(one)
    total = sum(count.values()) or 1
    print(", ".join(f"{kind}: {number:,} words ({number / total:.0%})" for kind, number in count.items()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
