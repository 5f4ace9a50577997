"""The tokenizer of the small Blenderbot: lower-case words in pieces, of which @@ marks all but a word's last one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tgen.text.files.added import Settings
from tgen.text.files.classes import DIALOGUE
from tgen.text.files.merges import read_merges

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

MARK, END = "@@", "</w>"


def marked_library(folder: Path, settings: Settings) -> Library:
    """The tokenizer of vocab.json, which marks pieces that do not end a word, and merges.txt, which marks those that do.

    Raises ValueError.
    """
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Library

    given, pairs = read_merges(folder)
    special = {str(settings.named(name)) for name in DIALOGUE}
    unknown = str(settings.named("unk_token"))
    if unknown not in given:
        raise ValueError(f"vocab.json lacks {unknown}")
    ids = {piece if piece in special else _by_ends(piece): number for piece, number in given.items()}
    # The library wants an id for pieces that only lead to larger ones, too. Where such a piece stays, the model has no embedding for it.
    last = max(given.values(), default=-1)
    missing = dict.fromkeys(piece for pair in pairs for piece in (*pair, "".join(pair)) if piece not in ids)
    ids |= {piece: number for number, piece in enumerate(missing, start=last + 1)}
    library = Library(models.BPE(ids, pairs, unk_token=unknown, end_of_word_suffix=END))
    # A newline after a word becomes a word of its own.
    library.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"(?<=[^\s'])\n"), " __newln__ "), normalizers.Lowercase()])
    cuts = [pre_tokenizers.Split("'", "isolated"), pre_tokenizers.Split(Regex("[.,!?()]"), "merged_with_next")]
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), *cuts])
    library.decoder = decoders.BPEDecoder(suffix=END)
    return library


def _by_ends(piece: str) -> str:
    """A piece of vocab.json as merges.txt spells it."""
    return piece[: -len(MARK)] if piece.endswith(MARK) else piece + END
