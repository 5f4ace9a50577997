"""A folder's tokenizer.json: read, checked, and freed of what has no place in generation."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from tests.engine.scripted import END, START, byte_library, byte_tokenizer
from tgen.errors import CheckpointError
from tgen.text.tokenizer import Tokenizer


def save(folder: Path, library: Library) -> Path:
    library.save(str(folder / "tokenizer.json"))
    return folder


def test_round_trip(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(save(tmp_path, byte_library()), vocab=258)
    assert tokenizer.encode("é!") == [0xC3, 0xA9, 0x21]
    assert tokenizer.decode([0xC3, 0xA9, 0x21]) == "é!"
    assert tokenizer.size() == 258


def test_special_tokens() -> None:
    tokenizer = byte_tokenizer(starts=True)
    assert tokenizer.encode("a") == [START, 97]
    assert tokenizer.encode("a", special=False) == [97]
    assert tokenizer.decode([START, 97, END]) == "a"
    assert tokenizer.decode([START, 97, END], special=True).replace(" ", "") == "<start>a<end>"


@pytest.mark.parametrize(("token", "piece"), [(97, "a"), (32, "Ġ"), (END, "<end>"), (999, "<999>")])
def test_pieces(token: int, piece: str) -> None:
    assert byte_tokenizer().piece(token) == piece


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    library = byte_library()
    library.enable_truncation(3)
    library.enable_padding(length=8)
    assert Tokenizer.load(save(tmp_path, library)).encode("abcde") == [*b"abcde"]


def test_the_vocabulary_may_be_smaller_than_the_models_but_not_larger(tmp_path: Path) -> None:
    save(tmp_path, byte_library())
    Tokenizer.load(tmp_path, vocab=300)
    with pytest.raises(CheckpointError, match="ids up to 257, but the model's vocabulary ends at 256"):
        Tokenizer.load(tmp_path, vocab=257)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer.json in"),
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b'{"version": "1.0"}', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.hint
