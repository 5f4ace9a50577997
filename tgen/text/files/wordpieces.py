"""Reads vocab.txt, BERT's vocabulary of word pieces, as a tokenizer of the tokenizers library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tgen.files import refuse_lfs_pointer
from tgen.text.files.added import Settings
from tgen.text.files.classes import WORDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library


def wordpiece_library(path: Path, settings: Settings) -> Library:
    """The tokenizer of a vocab.txt: one entry a line, its id the line's number. Raises ValueError."""
    refuse_lfs_pointer(path)
    lines = path.read_bytes().decode("utf-8").split("\n")
    return pieces_library({line.rstrip("\r"): number for number, line in enumerate(lines) if line or number + 1 < len(lines)}, settings)


def pieces_library(ids: dict[str, int], settings: Settings) -> Library:
    """The tokenizer of a vocabulary, whose special tokens the settings name. Raises ValueError if it lacks one that every text needs."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    names = {name: settings.named(name) or token for name, token in WORDS.items()}
    unknown, first, last = (names[name] for name in ("unk_token", "cls_token", "sep_token"))
    if missing := [token for token in (unknown, first, last) if token not in ids]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    library = Library(models.WordPiece(ids, unk_token=unknown))
    values = settings.values
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(values.get("tokenize_chinese_chars", True)),
        strip_accents=values.get("strip_accents"),
        lowercase=bool(values.get("do_lower_case", True)),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    ends = list(dict.fromkeys((token, ids[token]) for token in (first, last)))
    library.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    return library
