"""SentencePiece models of encoders that fill masks, ALBERT's and DeBERTa's: each text stands between [CLS] and [SEP]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tgen.text.files.added import Settings
from tgen.text.files.pieces import SPACE, PieceModel, piece_library

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

START, END, MASK = "[CLS]", "[SEP]", "[MASK]"


def albert_library(model: PieceModel, settings: Settings) -> Library:
    """ALBERT's: texts are in small letters without accents unless the settings say otherwise."""
    from tokenizers import normalizers

    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.flag("keep_accents"):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.flag("do_lower_case") is not False:
        steps.append(normalizers.Lowercase())
    return _framed(model, settings, steps)


def deberta_library(model: PieceModel, settings: Settings) -> Library:
    """DeBERTa's: its mask stands behind the pieces, and the settings may ask for lower case, or for punctuation marks apart."""
    from tokenizers import normalizers, pre_tokenizers

    library = _framed(model, settings, [normalizers.Lowercase()] if settings.flag("do_lower_case") else [])
    if settings.flag("split_by_punct"):
        marked = pre_tokenizers.Metaspace(SPACE, "always" if model.dummy_prefix else "never")  # every part is a text of its own
        library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("isolated"), marked])
    return library


def _framed(model: PieceModel, settings: Settings, steps: list[Any]) -> Library:
    from tokenizers import normalizers, processors

    names = {piece for piece, _, _ in model.pieces}
    behind = [MASK] if MASK not in names and not settings.added else []  # else the folder itself adds it
    library = piece_library(model, settings.values, behind)
    if missing := [name for name in (START, END) if name not in names]:
        raise ValueError(f"the SentencePiece vocabulary lacks {missing[0]}")
    library.normalizer = normalizers.Sequence([*steps, *([library.normalizer] if library.normalizer else [])])
    ids = [(name, library.token_to_id(name)) for name in (START, END)]
    library.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    return library
