"""Reads text to learn from: plain files, standard input, JSON lines with a `text` or `messages` field, and files of sentence pairs.

It drops a byte order mark at the start of a file, and turns every line ending into a plain newline, as Python's text mode does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tgen.errors import UsageError
from tgen.files import decode_text
from tgen.text.chat import Message, read_messages
from tgen.train.paths import PAIRS_HINT, TEXTS_HINT, check_file
from tgen.train.vocabulary import conversation
from tgen.ui.input import STDIN, read_stdin

LINES_HINT = 'write one object a line: {"text": "..."}, or {"messages": [{"role": "user", "content": "..."}, ...]}'


Writer = Callable[[Sequence[Message]], str]


def read_documents(names: Sequence[str], write: Writer = conversation) -> Iterator[str]:
    """Every document of every file, in order. A `.jsonl` file holds one document a line; any other file, or standard input (`-`), is one
    document. `write` makes a document of messages.

    Raises UsageError, which names the file and the line, for a file that cannot be read.
    """
    for name in names:
        if name == STDIN:
            yield from _parse(read_stdin(), "standard input", write)
        else:
            yield from _parse(_read(name, TEXTS_HINT), name, write)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Pairs from a file of `source<TAB>target` lines. Raises UsageError, which names the line, for a line that is not a pair."""
    pairs = []
    for number, line in enumerate(_decode(_read(str(path), PAIRS_HINT), str(path)).split("\n"), start=1):
        if not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 2 or not all(part.strip() for part in parts):
            raise UsageError(f"{path}, line {number}: not source<TAB>target", "one tab, and text on both of its sides")
        pairs.append((parts[0].strip(), parts[1].strip()))
    return pairs


def _read(name: str, hint: str) -> bytes:
    check_file(name, hint)
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", hint) from error


def _decode(data: bytes, name: str) -> str:
    return _plain_newlines(decode_text(data, name))


def _plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(data: bytes, name: str, write: Writer) -> Iterator[str]:
    text = _decode(data, name)
    if name.endswith(".jsonl") or (name == "standard input" and text.startswith("{")):
        yield from _parse_lines(text, name, write)
    elif text.strip():
        yield text


def _parse_lines(text: str, name: str, write: Writer) -> Iterator[str]:
    # Not splitlines(): a JSON string may hold U+2028 and other line separators unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            record = json.loads(line)
            document = record["text"] if "messages" not in record else _conversation(record["messages"], where, write)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{where}: not a JSON object with a text field or messages", LINES_HINT) from error
        if not isinstance(document, str):
            raise UsageError(f"{where}: the text field is not a string", LINES_HINT)
        if not document.isprintable() and any("\ud800" <= character <= "\udfff" for character in document):
            raise UsageError(
                f"{where}: the text field holds half a character, a surrogate alone", "correct the program that wrote the file"
            )
        if document.strip():
            yield _plain_newlines(document)


def _conversation(messages: Any, where: str, write: Writer) -> str:
    try:
        return write(read_messages(messages))
    except UsageError as error:
        raise UsageError(f"{where}: {error}", error.hint) from error
