"""ALBERT and DeBERTa folders that hold a SentencePiece model alone: the ids of its pieces, between [CLS] and [SEP]."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import tokenizer_cases
from tests.text.learnt import SENTENCES
from tgen.errors import CheckpointError
from tgen.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [case["text"] for case in tokenizer_cases("byt5")]
ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]"], "user_defined_symbols": ["[MASK]"]}
DEBERTA = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
SPECIAL = ("[MASK]", "<unk>", "<pad>", "[UNK]", "[PAD]")


def learnt(path: Path, config: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Learn the model of a folder and write the files beside it; returns sentencepiece's own reader."""
    common = {"vocab_size": 90, "hard_vocab_limit": False, "minloglevel": 2, "model_prefix": str(path.with_suffix(""))}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([*SENTENCES, *map(str.lower, SENTENCES)]), **common, **config)
    (path.parent / "tokenizer_config.json").write_text(json.dumps(settings))
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def plain(text: str) -> str:
    """A text in small letters, without accents, and with one kind of quotation marks."""
    text = unicodedata.normalize("NFKD", text.replace("``", '"').replace("''", '"'))
    return "".join(one for one in text if not unicodedata.combining(one)).lower()


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, plain),
        ({"do_lower_case": False, "keep_accents": True}, lambda text: text.replace("``", '"').replace("''", '"')),
    ],
)
def test_albert(settings: dict[str, Any], change: Callable[[str], str], tmp_path: Path) -> None:
    model = learnt(tmp_path / "spiece.model", ALBERT, settings)
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    tokenizer = Tokenizer.load(tmp_path)
    for text in [*TEXTS, "``The'' CAT", "Été"]:
        if not any(token in text for token in SPECIAL):
            assert tokenizer.encode(text) == [2, *model.encode(change(text)), 3], text
    assert tokenizer.encode("[MASK]", special=False) == [4]


@pytest.mark.parametrize("beside", [True, False])
def test_deberta(beside: bool, tmp_path: Path) -> None:
    """With an added_tokens.json as on the hub, or with none."""
    model = learnt(tmp_path / "spm.model", {**DEBERTA, "unk_piece": "[UNK]"}, {"do_lower_case": False, "vocab_type": "spm"})
    size = model.get_piece_size()
    if beside:
        (tmp_path / "added_tokens.json").write_text(json.dumps({"[MASK]": size}))
    tokenizer = Tokenizer.load(tmp_path)
    for text in TEXTS:
        if not any(token in text for token in SPECIAL):
            assert tokenizer.encode(text) == [1, *model.encode(text), 2], text
    assert tokenizer.encode("[MASK]") == [1, size, 2]
    assert tokenizer.decode(tokenizer.encode("The cat sat.", special=False)) == "The cat sat."


def test_what_the_settings_of_deberta_ask_for(tmp_path: Path) -> None:
    model = learnt(tmp_path / "spm.model", {**DEBERTA, "unk_piece": "[UNK]"}, {"do_lower_case": True, "split_by_punct": True})
    assert Tokenizer.load(tmp_path).encode("The CAT", special=False) == model.encode("the cat")
    assert Tokenizer.load(tmp_path).encode("cat,cat", special=False) == [*model.encode("cat"), *model.encode(","), *model.encode("cat")]


def test_a_model_without_the_tokens_of_such_an_encoder_is_damaged(tmp_path: Path) -> None:
    learnt(tmp_path / "spm.model", {}, {})
    with pytest.raises(CheckpointError, match=r"spm\.model is damaged: the SentencePiece vocabulary lacks \[CLS\]"):
        Tokenizer.load(tmp_path)
