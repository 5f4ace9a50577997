"""Files to learn from: a byte order mark is dropped, every line ends in a plain newline, and what cannot be read is named."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tgen.errors import UsageError
from tgen.train.inputs import read_documents, read_pairs
from tgen.train.settings import TrainSettings
from tgen.train.workspace import Workspace

MARK = b"\xef\xbb\xbf"
# The last line holds what Unicode calls line separators, and what is no mark at the start of a file.
PLAIN = "One.\nTwo.\n\nThree\u2028and\x85four\ufeff.\n"


def lines(*conversations: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in conversations).encode()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_marks_and_line_endings_are_not_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: bytes, newline: str) -> None:
    text, lines, pairs = (tmp_path / name for name in ("a.txt", "b.jsonl", "c.tsv"))
    data = mark + PLAIN.replace("\n", newline).encode()
    text.write_bytes(data)
    objects = [json.dumps({"text": document}) for document in (PLAIN.replace("\n", newline), "Two.")]
    lines.write_bytes(mark + newline.join([*objects, ""]).encode())
    pairs.write_bytes(mark + newline.join(["one\tun", "", "two\tdeux", ""]).encode())
    assert list(read_documents([str(text), str(lines), str(text)])) == [PLAIN, PLAIN, "Two.", PLAIN]
    assert read_pairs(pairs) == [("one", "un"), ("two", "deux")]
    for stdin, wanted in ((data, [PLAIN]), (lines.read_bytes(), [PLAIN, "Two."])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        assert list(read_documents(["-"])) == wanted


def test_one_mark_is_dropped_and_a_second_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(MARK + MARK + b"One.")
    assert list(read_documents([str(tmp_path / "a.txt")])) == ["\ufeffOne."]


def test_a_mark_does_not_become_a_token(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_bytes(MARK + "".join(f"word {i}\tmot {i}\r\n" for i in range(200)).encode())
    workspace = Workspace(tmp_path / "model")
    workspace.create_pairs(tmp_path / "p.tsv", TrainSettings(width=64, layers=1, vocab=300, context=32, steps=1))
    vocabulary = workspace.open().tokenizer.get_vocab()
    assert "Ġword" in vocabulary
    assert not [piece for piece in vocabulary if len(piece) > 1 and ("ï" in piece or "č" in piece)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (".", None, ". is a folder, not a file"),
        ("folder.jsonl", None, "folder.jsonl is a folder, not a file"),
        ("missing.txt", None, "no such file: missing.txt"),
        ("bad.txt", MARK + b"ab\xff", "bad.txt is not UTF-8 at byte 5"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl, line 1: not a JSON object with a text field"),
        ("user.jsonl", lines([{"role": "user", "content": "Hello"}]), "user.jsonl, line 1: a conversation to learn from must end"),
        ("none.jsonl", lines([]), "none.jsonl, line 1: "),
        ("role.jsonl", lines([{"role": "poet", "content": "Hello"}]), "role.jsonl, line 1: "),
        ("token.jsonl", lines([{"role": "assistant", "content": "a<|end|>b"}]), "token.jsonl, line 1: message 1 holds <|end|>"),
        ("half.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n', "half.jsonl, line 2: the text field holds half a character"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.jsonl").mkdir()
    if data is not None:
        Path(name).write_bytes(data)
    with pytest.raises(UsageError) as caught:
        list(read_documents([name]))
    assert caught.value.message.startswith(message)
    assert caught.value.hint
    if not name.endswith(".jsonl"):
        with pytest.raises(UsageError) as caught:
            read_pairs(Path(name))
        assert caught.value.message.startswith(message)
        assert caught.value.hint
