"""SentencePiece models with a vocab.json (Marian's two, M2M-100's one) in place of a tokenizer.json. Needs the sentencepiece package.

The class offers the few methods of the tokenizers library that tgen uses, so that no other module needs to tell the two apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import read_json, refuse_lfs_pointer
from tgen.text.files.added import Settings
from tgen.text.files.languages import language_codes, source_frame

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

START, END, PADDING, UNKNOWN, SPACE = "<s>", "</s>", "<pad>", "<unk>", "▁"
CODE = re.compile(">>[^<]+<<")  # Marian's name of a language to translate into


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of a text."""

    ids: list[int]


class SentencePieces:
    """One model for reading and one for writing, often the same, over a common vocabulary."""

    def __init__(
        self, read: SentencePieceProcessor, write: SentencePieceProcessor, pieces: Sequence[str], codes: Sequence[str] = (), first: str = ""
    ) -> None:
        """`codes` are special tokens that name languages; `first`, one of them, stands before each text.

        Raises CheckpointError for a vocabulary without the end token or the unknown token.
        """
        self._read = read
        self._write = write
        self._pieces = list(pieces)
        self._ids = {piece: number for number, piece in enumerate(self._pieces)}
        if END not in self._ids or UNKNOWN not in self._ids:
            raise CheckpointError(f"the SentencePiece vocabulary lacks {END} or {UNKNOWN}", "download the tokenizer's files again")
        self._special = {piece for piece in (*((START,) if codes else ()), END, PADDING, UNKNOWN, *codes) if piece in self._ids}
        self._first = [self._ids[first]] if first in self._special else []
        self._borders = re.compile(f"({'|'.join(map(re.escape, self._special))})")

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoded:
        """The ids of a text; with its language's code before it, if there is one, and the end token behind it if asked for."""
        code = CODE.match(text)
        pieces = [code[0]] if code else []
        for part in self._borders.split(text[code.end() if code else 0 :]):
            pieces += [part] if part in self._special else self._read.encode(part, out_type=str)
        unknown = self._ids[UNKNOWN]
        ids = [self._ids.get(piece, unknown) for piece in pieces]
        return Encoded([*self._first, *ids, self._ids[END]] if add_special_tokens else ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; special tokens as they are spelled, or not at all."""
        text, plain = "", list[str]()
        for piece in (self._pieces[i] for i in ids if i < len(self._pieces)):
            if piece not in self._special:
                plain.append(piece)
            elif not skip_special_tokens:
                text, plain = text + self._written(plain, text) + piece, []
        return text + self._written(plain, text)

    def _written(self, pieces: list[str], before: str) -> str:
        """The text of pieces without special tokens. The model drops a leading space; only the very beginning of a text may lose it."""
        # A piece that only the reading model knows is decoded to its spelling.
        text: str = self._write.decode(pieces).replace(SPACE, " ")
        return f" {text}" if before and pieces and pieces[0].startswith(SPACE) else text

    def id_to_token(self, number: int) -> str | None:
        """A vocabulary entry."""
        return self._pieces[number] if number < len(self._pieces) else None

    def token_to_id(self, piece: str) -> int | None:
        """The id of an entry."""
        return self._ids.get(piece)

    def special(self) -> dict[int, str]:
        """The entries that stand for themselves in a text, by their ids."""
        return {self._ids[piece]: piece for piece in self._special}

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:  # noqa: ARG002
        """How many entries there are."""
        return len(self._pieces)


def find_sentencepieces(folder: Path, settings: Settings) -> SentencePieces | None:
    """Marian's or M2M-100's SentencePiece models of a folder, None if it has none.

    Raises CheckpointError for a damaged file, UnsupportedError without the package.
    """
    if (folder / "source.spm").is_file() and (folder / "target.spm").is_file():
        vocabulary = read_json(folder / "vocab.json")
        read, write = _processor(folder / "source.spm"), _processor(folder / "target.spm")
        return SentencePieces(read, write, _by_id(vocabulary, folder))
    if (folder / "sentencepiece.bpe.model").is_file() and (folder / "vocab.json").is_file():
        pieces, codes = _by_id(read_json(folder / "vocab.json"), folder), language_codes(folder, settings)
        both, frame = _processor(folder / "sentencepiece.bpe.model"), source_frame(folder, settings)
        return SentencePieces(both, both, [*pieces, *codes], codes, frame[0] if frame else "")
    return None


def _processor(path: Path) -> SentencePieceProcessor:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        message = f"{path.name} needs the sentencepiece package, which is not installed"
        raise UnsupportedError(message, "pip install 'tgen[sentencepiece]', or save a tokenizer.json with transformers") from error
    refuse_lfs_pointer(path)
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", "download the file again") from error


def _by_id(vocabulary: dict[str, object], folder: Path) -> list[str]:
    """The entries of a vocab.json in the order of their ids, which must be 0 to n-1."""
    if sorted(map(json.dumps, vocabulary.values())) != sorted(map(str, range(len(vocabulary)))):
        raise CheckpointError(f"{folder / 'vocab.json'} does not number its entries from 0", "download the file again")
    by_id = {number: piece for piece, number in vocabulary.items()}
    return [by_id[number] for number in range(len(by_id))]
