"""Reads vocab.txt, BERT's vocabulary of word pieces, as a tokenizer of the tokenizers library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.files import refuse_lfs_pointer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_library(path: Path, settings: dict[str, Any]) -> Library:
    """The tokenizer of a vocab.txt: one entry a line, its id the line's number. Raises ValueError."""
    refuse_lfs_pointer(path)
    lines = path.read_bytes().decode("utf-8").split("\n")
    return pieces_library({line.rstrip("\r"): number for number, line in enumerate(lines) if line or number + 1 < len(lines)}, settings)


def pieces_library(ids: dict[str, int], settings: dict[str, Any]) -> Library:
    """The tokenizer of a vocabulary. Raises ValueError if it lacks a special token."""
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Library

    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in ids]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    library = Library(models.WordPiece(ids, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL if token in ids])
    ends = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    library.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return library
