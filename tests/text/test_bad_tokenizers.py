"""A tokenizer.json that cannot be used is refused before it can do harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.damage import LFS_POINTER, assert_clear, edit
from tests.conftest import GOLDEN
from tgen.errors import CheckpointError
from tgen.text.tokenizer import Tokenizer

CopyGolden = Callable[[str], Path]


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (
            None,
            r"no tokenizer in ",
            "tokenizer.json, tokenizer.model, .* vocab.json with merges.txt, vocab.txt, tekken.json, or tiktoken.model",
        ),
        (b"", r"tokenizer\.json is damaged", "download the file again"),
        (b"{", r"tokenizer\.json is damaged", "download the file again"),
        (b"[]", r"tokenizer\.json is damaged", "download the file again"),
        (b'{"version": "1.0", "model": {"type": "Unheard"}}', r"tokenizer\.json is damaged", "download the file again"),
        (LFS_POINTER.encode(), r"tokenizer\.json is a Git-LFS pointer", "git lfs pull"),
        (b" " * (201 * 2**20), r"tokenizer\.json is larger than 200 MiB", "download the file again"),
    ],
)
def test_bad_tokenizers(content: bytes | None, message: str, hint: str, copy_golden: CopyGolden) -> None:
    path = copy_golden("gpt2") / "tokenizer.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(path.parent, 288)
    assert_clear(caught.value, message, hint)


PARTS: list[tuple[dict[str, Any], str]] = [
    ({"decoder": {"type": "Strip", "content": "a", "start": 2**63, "stop": 0}}, "is damaged: its decoder strips without end"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}}, "is damaged: "),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAP8="}}, "is damaged: 'utf-8' codec"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "is damaged: its precompiled_charsmap is cut off"),
]


@pytest.mark.parametrize(("change", "message"), PARTS)
def test_bad_parts_of_tokenizers(change: dict[str, Any], message: str, copy_golden: CopyGolden, capfd: pytest.CaptureFixture[str]) -> None:
    folder = copy_golden("gpt2")
    edit(folder / "tokenizer.json", **change)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(folder, 288)
    assert_clear(caught.value, message, "")
    assert capfd.readouterr().err == ""  # where the library itself says that it panics


@pytest.mark.parametrize("size", [512, 2**40])
def test_padding_and_truncation_of_a_tokenizer_are_not_applied(size: int, copy_golden: CopyGolden) -> None:
    """The library would set the memory aside at once."""
    folder = copy_golden("gpt2")
    padding = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", padding={"strategy": {"Fixed": size}, **padding}, truncation=truncation)
    assert Tokenizer.load(folder).encode("Once upon") == Tokenizer.load(GOLDEN / "gpt2").encode("Once upon")


def test_a_pattern_that_backtracks_without_end(copy_golden: CopyGolden, capfd: pytest.CaptureFixture[str]) -> None:
    folder = copy_golden("gpt2")
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    edit(folder / "tokenizer.json", pre_tokenizer=pattern)
    tokenizer = Tokenizer.load(folder)
    with pytest.raises(CheckpointError) as caught:
        tokenizer.encode("a" * 60 + "!")
    assert_clear(caught.value, "the tokenizer cannot read this text: .*retry-limit", "correct tokenizer.json, or download")
    os.write(2, b"still there")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.endswith("still there")  # after what the library itself says of its panic, which nothing can keep it from


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", b"[]", "holds list"),
        ("vocab.json", b'{"a": "b"}', "vocab.json is damaged: vocab.json holds ids that are no numbers"),
        ("merges.txt", b"a b c\n", "vocab.json is damaged: merges.txt has a line that is not two entries"),
        ("merges.txt", b"<|endoftext|> z\n", "merges.txt joins '<\\|endoftext\\|>' and 'z', which make no entry of vocab.json"),
        ("vocab.txt", b"[UNK]\n", r"vocab.txt is damaged: it lacks \[CLS\], \[SEP\]"),
        ("vocab.txt", b"\xff", "vocab.txt is damaged: 'utf-8'"),
        ("tekken.json", b"{}", "tekken.json is damaged: it lacks or mistakes 'config'"),
        ("tokenizer.model", b"", "tokenizer.model is damaged: it has no pieces"),
        ("tokenizer.model", b"no model", "tokenizer.model is damaged: it is"),
        ("tokenizer.model", b"\n\xff\xff\xff\x7f", "tokenizer.model is damaged: it is cut off"),
        ("spiece.model", LFS_POINTER.encode(), "spiece.model is a Git-LFS pointer"),
    ],
)
def test_other_files_that_are_damaged(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    for other in ("vocab.json", "merges.txt") if name in ("vocab.json", "merges.txt") else ():
        (tmp_path / other).write_bytes((GOLDEN / "tokenizers" / "gpt2" / other).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(tmp_path)
    assert_clear(caught.value, message, "")
