"""Folders with SentencePiece models, learnt from a few sentences. Needs the sentencepiece package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SENTENCES = [
    "The cat sat on the mat, and the dog looked at the cat.",
    "Il était une fois une petite fille; elle voyait 2 oiseaux!",
    "A park is where one walks in the morning (or in the evening).",
]
CODE = ">>fra<<"


def learn_folders(root: Path) -> dict[str, Path]:
    """A folder of each form: T5's and Marian's."""
    import sentencepiece

    def learn(name: str, sentences: list[str], **special: int) -> Path:
        settings: dict[str, Any] = {"vocab_size": 70, "hard_vocab_limit": False, "minloglevel": 2, **special}
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences * 5), model_prefix=str(root / name), **settings)
        return root / f"{name}.model"

    t5, marian = root / "t5", root / "marian"
    t5.mkdir()
    learn("both", SENTENCES, pad_id=0, eos_id=1, unk_id=2, bos_id=-1).rename(t5 / "spiece.model")
    (t5 / "tokenizer_config.json").write_text('{"extra_ids": 3}')
    marian.mkdir()
    learn("source", SENTENCES[::2]).rename(marian / "source.spm")
    learn("target", SENTENCES[1:2]).rename(marian / "target.spm")
    pieces = {"</s>": 0, "<unk>": 1}
    for model in ("source.spm", "target.spm"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(marian / model))
        for piece in map(processor.id_to_piece, range(processor.get_piece_size())):
            pieces.setdefault(piece, len(pieces))
    (marian / "vocab.json").write_text(json.dumps({**pieces, CODE: len(pieces), "<pad>": len(pieces) + 1}))
    (marian / "tokenizer_config.json").write_text('{"source_lang": "en", "target_lang": "fr"}')
    return {"t5": t5, "marian": marian}
