"""Folders of translators between many languages, and others whose SentencePiece model has fairseq's or PEGASUS's order of ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.text.learnt import SENTENCES
from tgen.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = ["The cat sat.", "", "  two  spaces", "été 🎉", "a <unk> b</s>", "dog en_XX x", "<mask> park <pad>"]
NLLB = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": ["eng_Latn", "fra_Latn"]}
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # The class in transformers, tokenizer_config.json, and config.json.
    "xlm_roberta": ("XLMRobertaTokenizer", {}, {"model_type": "xlm-roberta"}),
    "camembert": ("CamembertTokenizer", {}, {"model_type": "camembert"}),
    "mbart": ("MBartTokenizer", {"src_lang": "ro_RO"}, {"model_type": "mbart"}),
    "mbart50": ("MBart50Tokenizer", {}, {"model_type": "mbart", "tokenizer_class": "MBart50Tokenizer"}),
    "nllb": ("NllbTokenizer", NLLB, {"model_type": "m2m_100"}),
    "m2m_100": ("M2M100Tokenizer", {}, {"model_type": "m2m_100"}),
    "pegasus": ("PegasusTokenizer", {}, {"model_type": "pegasus"}),
}


def learnt(folder: Path, form: str) -> Path:
    """A folder with a SentencePiece model of this form."""
    _, settings, config = FORMS[form]
    pegasus = form == "pegasus"
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if pegasus else {}
    model = folder / ("spiece" if pegasus else "sentencepiece.bpe")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(model), vocab_size=60, hard_vocab_limit=False, minloglevel=2, **ids
    )
    if form == "m2m_100":
        processor = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *(processor.id_to_piece(n) for n in range(4, processor.get_piece_size()))]
        (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def order(form: str, number: int) -> int:
    """The id of a piece, by its number in the SentencePiece file: the tables of the classes in transformers."""
    if form == "pegasus":
        return number + 103 if number > 1 else number
    if form == "camembert":
        return {0: 3, 1: 5, 2: 6}.get(number, number + 4)
    return {0: 3, 1: 0, 2: 2}.get(number, number + 1)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "m2m_100"])
def test_ids_are_those_of_the_pieces_in_the_familys_order(form: str, tmp_path: Path) -> None:
    folder = learnt(tmp_path, form)
    tokenizer, model = Tokenizer.load(folder), sentencepiece.SentencePieceProcessor(model_file=str(next(folder.glob("s*.model"))))
    size = model.get_piece_size()
    special = {"</s>": 1 if form == "pegasus" else 2 if form != "camembert" else size_of(tokenizer, "</s>")}
    after = order(form, size)
    codes = {"mbart": 25, "mbart50": 52, "nllb": 2}.get(form, 0)
    if form != "pegasus":
        special["<mask>"] = after + codes
    frame: dict[str, tuple[list[int], list[int]]] = {
        "xlm_roberta": ([0], [2]),
        "camembert": ([5], [6]),
        "mbart": ([], [2, after + 19]),  # ro_RO is the 20th code
        "mbart50": ([after + 3], [2]),
        "nllb": ([after], [2]),
        "pegasus": ([], [1]),
    }
    for text in ("The cat sat.", "", "  two  spaces", "été 🎉"):
        before, behind = frame[form]
        assert tokenizer.encode(text) == [*before, *(order(form, number) for number in model.encode(text)), *behind], text
        plain = tokenizer.encode(text, special=False)
        assert tokenizer.decode(plain) == model.decode(
            [number for number in model.encode(text) if number != (2 if form == "pegasus" else 0)]
        )
    for text, number in special.items():
        assert tokenizer.encode(text, special=False) == [number]
    if codes > 2:
        assert tokenizer.encode("en_XX", special=False) == [after + 3]
    assert tokenizer.size() == after + codes + (form != "pegasus")


def size_of(tokenizer: Tokenizer, piece: str) -> int:
    number = tokenizer.id_of(piece)
    assert number is not None
    return number


def test_m2m_100_is_as_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = learnt(tmp_path, "m2m_100")
    tokenizer, reference = Tokenizer.load(folder), transformers.M2M100Tokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer.encode(text) == reference(text)["input_ids"], text
    assert tokenizer.id_of("__en__") == reference.get_lang_id("en")
    assert tokenizer.id_of("__zu__") == reference.get_lang_id("zu") == tokenizer.size() - 1
