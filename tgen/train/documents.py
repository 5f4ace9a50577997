"""Text to learn from: plain files, standard input, or JSON lines with a `text` field. Knows no tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tgen.errors import UsageError

STDIN = "-"


def read_documents(sources: Sequence[str]) -> Iterator[str]:
    """Every document of every source, in order. A `.jsonl` file holds one a line, another file or standard input (`-`) is one.

    Raises UsageError, naming file and line, for what cannot be read.
    """
    for source in sources:
        if source == STDIN:
            yield from _parse(sys.stdin.buffer.read(), "standard input")
            continue
        path = Path(source)
        if not path.is_file():
            raise UsageError(f"no such file: {source}", "give text files, .jsonl files, or - for standard input")
        yield from _parse(path.read_bytes(), source)


def _parse(data: bytes, name: str) -> Iterator[str]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 at byte {error.start}", "convert it, for example with iconv -t UTF-8") from error
    if name.endswith(".jsonl") or (name == "standard input" and text.startswith("{")):
        yield from _parse_lines(text, name)
    elif text.strip():
        yield text


def _parse_lines(text: str, name: str) -> Iterator[str]:
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{name}, line {number}: not a JSON object with a text field") from error
        if not isinstance(document, str):
            raise UsageError(f"{name}, line {number}: the text field is not a string")
        if document.strip():
            yield document
