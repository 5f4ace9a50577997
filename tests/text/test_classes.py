"""Folders of vocab.json or vocab.txt that do not name their special tokens: their class has names for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import tokenizer_folder
from tgen.errors import CheckpointError
from tgen.text.tokenizer import Tokenizer

SENTENCE = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def byte_pairs(place: Path, special: tuple[str, ...], settings: dict[str, object], model_type: str = "") -> Tokenizer:
    """GPT-2's golden vocabulary with other special tokens behind it."""
    place.mkdir()
    source = tokenizer_folder("gpt2")
    ids = json.loads((source / "vocab.json").read_text("utf-8"))
    for token in special:
        ids.setdefault(token, len(ids))
    (place / "vocab.json").write_text(json.dumps(ids))
    (place / "merges.txt").write_bytes((source / "merges.txt").read_bytes())
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    (place / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Tokenizer.load(place)


def words(place: Path, entries: tuple[str, ...], settings: dict[str, object], model_type: str = "bert") -> Tokenizer:
    place.mkdir()
    (place / "vocab.txt").write_text("\n".join((*entries, "once", "upon")) + "\n")
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    (place / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Tokenizer.load(place)


@pytest.mark.parametrize(
    ("kind", "model_type"), [("GPT2Tokenizer", ""), ("CodeGenTokenizer", "codegen"), ("", "gpt_neo"), ("Qwen2TokenizerFast", "")]
)
def test_the_end_of_a_text_is_one_token(kind: str, model_type: str, tmp_path: Path) -> None:
    """DialoGPT's folder, for one, does not name it, and its conversations are made of it."""
    tokenizer = byte_pairs(tmp_path / "folder", (), {"tokenizer_class": kind} if kind else {}, model_type)
    ids = tokenizer.encode("Once<|endoftext|>")
    assert ids[-1] == tokenizer.special_id("<|endoftext|>")
    assert tokenizer.decode(ids) == "Once"


@pytest.mark.parametrize(("kind", "model_type"), [("RobertaTokenizer", ""), ("BartTokenizer", ""), ("", "roberta"), ("", "bart")])
def test_ends_and_mask_of_a_sentence(kind: str, model_type: str, tmp_path: Path) -> None:
    tokenizer = byte_pairs(tmp_path / "folder", SENTENCE, {"tokenizer_class": kind} if kind else {}, model_type)
    ids = tokenizer.encode("Once <mask> a")
    assert [tokenizer.piece(number) for number in (ids[0], ids[-1])] == ["<s>", "</s>"]
    assert tokenizer.decode(ids) == "Once a"  # the mask takes the space before it
    assert tokenizer.decode(tokenizer.encode("Once<mask> a")) == "Once a"


def test_blenderbot_begins_with_a_space(tmp_path: Path) -> None:
    plain = byte_pairs(tmp_path / "plain", SENTENCE, {"tokenizer_class": "GPT2Tokenizer"})
    tokenizer = byte_pairs(tmp_path / "folder", SENTENCE, {}, "blenderbot")
    assert tokenizer.encode("Once") == plain.encode(" Once")
    other = byte_pairs(tmp_path / "other", SENTENCE, {"add_prefix_space": False}, "blenderbot")
    assert other.encode("Once") == plain.encode("Once")


def test_qwen_is_known_by_its_model(tmp_path: Path) -> None:
    """Its tokenizer puts characters together first."""
    tokenizer = byte_pairs(tmp_path / "folder", (), {}, "qwen3")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    other = byte_pairs(tmp_path / "other", (), {}, "gpt2")
    assert other.encode("e\u0301") != other.encode("\u00e9")


def test_mpnet_has_other_names_than_bert(tmp_path: Path) -> None:
    tokenizer = words(tmp_path / "folder", ("<s>", "<pad>", "</s>", "[UNK]", "<mask>"), {}, "mpnet")
    assert tokenizer.encode("Once twice <mask>") == [0, 5, 3, 4, 2]
    assert tokenizer.decode([0, 5, 6, 2]) == "once upon"


def test_a_folder_of_words_names_its_own(tmp_path: Path) -> None:
    names = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    tokenizer = words(tmp_path / "folder", ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), {"tokenizer_class": "BertTokenizer", **names})
    assert tokenizer.encode("Once twice<mask>") == [2, 5, 1, 4, 3]
    with pytest.raises(CheckpointError, match=r"it lacks \[UNK\], \[CLS\], \[SEP\]"):
        words(tmp_path / "unnamed", ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), {})
