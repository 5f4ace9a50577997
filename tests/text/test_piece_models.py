"""SentencePiece models of all settings give sentencepiece's own ids, or one line names the setting that is not implemented."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.text.learnt import SENTENCES
from tgen.errors import UnsupportedError
from tgen.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = ["The cat", " The cat", "   two  spaces ", "\n\n\t\tlines \n", "\n", "  ", "", "▁under▁▁bar", "a\u00a0b\u3000c", "\u200bzero", "ﬁ"]
SETTINGS = list(itertools.product(("bpe", "unigram"), (True, False), (True, False), ("identity", "nmt_nfkc"), (True, False)))


def learn(place: Path, **settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5), model_writer=model, vocab_size=330, hard_vocab_limit=False, minloglevel=2,
        byte_fallback=True, **settings,
    )  # fmt: skip
    (place / "tokenizer.model").write_bytes(model.getvalue())
    (place / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    return model.getvalue()


@pytest.mark.parametrize(("kind", "prefix", "one_space", "rules", "within"), SETTINGS)
def test_the_ids_are_those_of_sentencepiece(kind: str, prefix: bool, one_space: bool, rules: str, within: bool, tmp_path: Path) -> None:
    """Also where pieces may hold spaces: those of models that do not split texts at them."""
    data = learn(
        tmp_path,
        model_type=kind,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=one_space,
        normalization_rule_name=rules,
        split_by_whitespace=within,
    )
    tokenizer, reference = Tokenizer.load(tmp_path), sentencepiece.SentencePieceProcessor(model_proto=data)
    wrong = [text for text in TEXTS if tokenizer.encode(text) != reference.encode(text)]
    assert not wrong


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"treat_whitespace_as_suffix": True}, "puts the mark of a space behind words"),
        ({"escape_whitespaces": False}, "does not mark spaces"),
        ({"model_type": "char"}, "of words or characters"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = learn(tmp_path, **{"model_type": "unigram", **{key: one for key, one in settings.items() if key != "escape_whitespaces"}})
    if "escape_whitespaces" in settings:  # the trainer ignores it, but a model's normaliser may say so
        (tmp_path / "tokenizer.model").write_bytes(data + bytes([3 << 3 | 2, 2, 5 << 3, 0]))
    with pytest.raises(UnsupportedError, match=words):
        Tokenizer.load(tmp_path)
