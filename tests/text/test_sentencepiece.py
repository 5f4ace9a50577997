"""Folders that hold SentencePiece models instead of a tokenizer.json, in T5's and in Marian's form."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.text.learnt import CODE, SENTENCES, learn_folders
from tgen.errors import CheckpointError, UnsupportedError
from tgen.text.detokenizer import Detokenizer
from tgen.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
    "The cat sat.",
    "",
    "  two  spaces  ",
    "éà 🎉 日本 cat",
    "a\tb\nc",
    "▁under▁bar",
    "The <extra_id_0> walks in <extra_id_1> park",
    "<extra_id_1><extra_id_0>",
    "</s> x <unk> y<pad>",
    ">>fra<< The cat",
    "x >>fra<< The cat",
    ">>deu<< The cat",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each form, with models learnt from a few sentences."""
    return learn_folders(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a folder to damage."""
    return lambda form: shutil.copytree(folders[form], tmp_path / form)


@pytest.mark.parametrize("form", ["t5", "marian"])
def test_text_comes_back(folders: dict[str, Path], form: str) -> None:
    tokenizer = Tokenizer.load(folders[form])
    assert tokenizer.kind == ("Unigram" if form == "t5" else "SentencePieces")
    ids = tokenizer.encode("The cat sat.")
    assert ids[-1] == tokenizer.id_of("</s>")
    assert tokenizer.encode("The cat sat.", special=False) == ids[:-1]
    assert tokenizer.decode(ids) == "The cat sat."
    assert tokenizer.decode(ids, special=True) == "The cat sat.</s>"
    assert tokenizer.piece(ids[0]).startswith("▁")
    assert tokenizer.piece(tokenizer.size()) == f"<{tokenizer.size()}>"
    assert tokenizer.decode([*ids, tokenizer.size()]) == "The cat sat."
    assert max(ids) < tokenizer.size()


@pytest.mark.parametrize("form", ["t5", "marian"])
def test_text_streams_as_it_is_written(folders: dict[str, Path], form: str) -> None:
    tokenizer = Tokenizer.load(folders[form])
    text = SENTENCES[1] if form == "marian" else SENTENCES[0]
    detokenizer = Detokenizer(tokenizer, [])
    pieces = [detokenizer.feed(token) for token in tokenizer.encode(text, special=False)]
    assert "".join([*pieces, detokenizer.flush()]) == tokenizer.decode(tokenizer.encode(text))


def test_sentinels_stand_behind_the_pieces_the_first_one_last(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["t5"])
    size = tokenizer.size()
    assert [tokenizer.id_of(f"<extra_id_{number}>") for number in range(4)] == [size - 1, size - 2, size - 3, None]
    ids = tokenizer.encode("The <extra_id_0> walks", special=False)
    assert ids.count(size - 1) == 1
    assert tokenizer.decode(ids, special=True) == "The<extra_id_0> walks"
    assert tokenizer.decode(ids) == "The walks"


def test_a_language_to_translate_into_is_one_token_at_the_beginning_alone(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["marian"])
    code = tokenizer.id_of(CODE)
    assert tokenizer.encode(f"{CODE} The cat")[0] == code
    assert code not in tokenizer.encode(f"The {CODE} cat")
    assert tokenizer.encode(f"{CODE} The cat")[1:] == tokenizer.encode(" The cat")
    assert len(tokenizer.encode(CODE, special=False)) == 1
    assert len(Tokenizer.load(folders["t5"]).encode(CODE, special=False)) > 1  # there it is a text like any other


@pytest.mark.parametrize(("form", "library"), [("t5", "T5Tokenizer"), ("marian", "MarianTokenizer")])
def test_ids_and_texts_are_those_of_transformers(folders: dict[str, Path], form: str, library: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        try:
            reference = getattr(transformers, library).from_pretrained(folders[form])
        except (ImportError, ValueError) as error:  # what transformers itself needs for T5's form
            pytest.skip(str(error))
        tokenizer = Tokenizer.load(folders[form])
        for text in TEXTS:
            ids = reference(text)["input_ids"]
            assert tokenizer.encode(text) == ids, text
            assert tokenizer.decode(ids).strip() == reference.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("form", "name", "content", "words"),
    [
        ("t5", "spiece.model", b"no model", "spiece.model is damaged"),
        ("t5", "spiece.model", b"", "spiece.model is damaged"),
        ("t5", "spiece.model", b"version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
        ("t5", "tokenizer_config.json", b'{"extra_ids": -1}', "extra_ids is -1, not a number"),
        ("t5", "tokenizer_config.json", b'{"extra_ids": 1000000000000}', "not a number from 0 to 10000"),
        ("t5", "tokenizer_config.json", b'{"extra_ids": "3"}', "extra_ids is '3', not a number"),
        ("marian", "target.spm", b"no model", "target.spm is damaged"),
        ("marian", "vocab.json", b"{", "is not JSON"),
        ("marian", "vocab.json", b"[]", "holds list"),
        ("marian", "vocab.json", b'{"a": 0, "b": 2}', "does not number its entries from 0"),
        ("marian", "vocab.json", b'{"a": 0, "b": 0}', "does not number its entries from 0"),
        ("marian", "vocab.json", b'{"a": [], "b": {}}', "does not number its entries from 0"),
        ("marian", "vocab.json", b'{"<unk>": 0, "b": 1}', "lacks </s> or <unk>"),
        ("marian", "vocab.json", b"{}", "lacks </s> or <unk>"),
    ],
)
def test_what_is_damaged_is_named(copied: Callable[[str], Path], form: str, name: str, content: bytes, words: str) -> None:
    folder = copied(form)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        Tokenizer.load(folder)
    assert caught.value.hint


def test_without_the_package_it_is_asked_for(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert Tokenizer.load(folders["t5"]).encode("The cat sat.")
    with pytest.raises(UnsupportedError, match=r"source\.spm needs the sentencepiece package") as caught:
        Tokenizer.load(folders["marian"])
    assert caught.value.hint
    assert "pip install" in caught.value.hint


def test_a_tokenizer_json_goes_first(copied: Callable[[str], Path]) -> None:
    folder = copied("t5")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        Tokenizer.load(folder)


def test_one_of_marians_models_alone_is_none(copied: Callable[[str], Path]) -> None:
    folder = copied("marian")
    (folder / "target.spm").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer in"):
        Tokenizer.load(folder)
