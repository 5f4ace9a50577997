"""Files of messages: what a conversation writes, what it reads, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tgen.cli.talk import load_messages, save_messages
from tgen.errors import TgenError, UsageError
from tgen.text.chat import Message


def test_messages_go_to_a_file_and_back(tmp_path: Path) -> None:
    messages = [Message("system", "é"), Message("user", "\n\x1b"), Message("assistant", "")]
    path = tmp_path / "talk.json"
    for _ in range(2):  # one conversation may overwrite another
        save_messages(path, messages)
    assert json.loads(path.read_text("utf-8")) == [{"role": m.role, "content": m.content} for m in messages]
    assert load_messages(path) == messages
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_messages(path) == messages


def test_what_is_no_conversation_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        save_messages(path, [])
    assert path.read_bytes() == b"precious"
    with pytest.raises(UsageError, match="cannot write"):
        save_messages(tmp_path / "missing" / "talk.json", [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"9" * 9999, "there is no list of messages"),
        (b"[" * 100_000, "is not JSON"),
        (b"{}", "there is no list of messages"),
        (b"[3]", "message 1 has no text"),
        (b'[{"role": "user"}]', "message 1 has no text"),
        (b'[{"role": "user", "content": ["a"]}]', "message 1 has no text"),
        (b'[{"role": "robot", "content": ""}]', "message 1 has the role 'robot'"),
        (b'[{"role": ["user"], "content": ""}]', "message 1 has the role"),
        (b'[{"role": "user", "content": ""}, {"role": "system", "content": ""}]', "message 2 has the role 'system'"),
        (b'[{"role": "user", "content": "\\ud800"}]', "half a surrogate pair"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "talk.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TgenError, match=words):
        load_messages(path)
