"""Turns text into ids and back, through the tokenizers or the sentencepiece library."""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT, refuse_lfs_pointer
from tgen.text.token_bytes import SENTENCEPIECE, TokenBytes, read_token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from tgen.text.sentencepiece import SentencePieces


MAX_BYTES, MAX_STRIP = 200 * 2**20, 100
TRIAL = "Once upon a time, 12 [MASK]\n"


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn whatever the library raises into CheckpointError: bare Exceptions, and panics, which are only BaseExceptions."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: {error}", f"correct tokenizer.json, or {DOWNLOAD_HINT}") from error


def _refuse_panics(data: bytes) -> None:
    """Raise ValueError for a damaged table of characters: the library would panic over it, and itself write to standard error."""
    for found in re.finditer(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"', data):
        table = base64.b64decode(found[1].replace(b"\\/", b"/"), validate=True)
        size = int.from_bytes(table[:4], "little")
        if len(table) < 4 or size > len(table) - 4:
            raise ValueError("its precompiled_charsmap is cut off")
        table[4 + size - size % 4 :].decode("utf-8")


def _decoder(library: Library | SentencePieces) -> dict[str, Any] | None:
    """The decoder as tokenizer.json spells it."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    if not isinstance(library, Library) or library.decoder is None:
        return None
    alone = Library(models.BPE())  # to write the vocabulary, too, would take a second where it is large
    alone.decoder = library.decoder
    decoder: dict[str, Any] = json.loads(alone.to_str())["decoder"]
    return decoder


def _refuse_wide_strip(decoder: dict[str, Any] | None) -> None:
    """Raise ValueError for a decoder that strips more characters than a token has: the library panics where a token is all of them."""
    for step in [] if decoder is None else decoder.get("decoders", [decoder]):
        if step["type"] == "Strip" and max(step["start"], step["stop"]) > MAX_STRIP:
            raise ValueError("its decoder strips without end")


class Tokenizer:
    """A folder's tokenizer.json, or the SentencePiece models where there is none."""

    def __init__(self, library: Library | SentencePieces) -> None:
        self.library = library

    @classmethod
    def load(cls, folder: Path, vocab: int | None = None) -> Tokenizer:
        """Raises CheckpointError if tokenizer.json is missing, damaged, or knows ids beyond the model's `vocab` embeddings."""
        from tokenizers import Tokenizer as Library

        path = folder / "tokenizer.json"
        if not path.is_file():
            from tgen.text.sentencepiece import find_sentencepieces

            if pieces := find_sentencepieces(folder, vocab):
                return cls(pieces)
            raise CheckpointError(f"no tokenizer.json in {folder}", "save it with transformers: AutoTokenizer...save_pretrained(folder)")
        refuse_lfs_pointer(path)
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB, too large for such a file", DOWNLOAD_HINT)
        with _damage(f"{path} is damaged"):
            data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
            _refuse_panics(data)
            library = Library.from_buffer(data)
            library.no_padding()
            library.no_truncation()
            _refuse_wide_strip(_decoder(library))
            trial = library.encode(TRIAL).ids  # some damage shows only when it is used
            library.decode(trial)
        largest = max([*library.get_vocab(with_added_tokens=True).values(), *trial], default=-1)
        if vocab is not None and largest >= vocab:
            message = f"{path} has ids up to {largest}, but the model's vocabulary ends at {vocab - 1}"
            raise CheckpointError(message, "tokenizer and weights belong to different models; download both again")
        return cls(library)

    @property
    def kind(self) -> str:
        """The algorithm that cuts the text: BPE, Unigram, WordPiece ... or SentencePiece."""
        return type(getattr(self.library, "model", self.library)).__name__

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, with the start and end tokens that the tokenizer itself adds if `special`."""
        with _damage("the tokenizer cannot read this text"):
            return self.library.encode(text, add_special_tokens=special).ids

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of ids; special tokens are left out unless asked for."""
        with _damage("the tokenizer cannot write these tokens"):
            return self.library.decode(ids, skip_special_tokens=not special)

    def piece(self, token: int) -> str:
        """A token as the vocabulary spells it, such as `Ġonce`; ids without an entry as `<id>`."""
        piece = self.library.id_to_token(token)
        return f"<{token}>" if piece is None else piece

    def id_of(self, piece: str) -> int | None:
        """The id of a vocabulary entry, None if there is none of this spelling."""
        return self.library.token_to_id(piece)

    def added(self) -> dict[str, bool]:
        """The texts that the tokenizer turns into one token before any other step, and whether each is special."""
        return dict(self._added.values())

    def special_id(self, text: str) -> int | None:
        """The id of the special token that has exactly this text; None if there is none."""
        return next((token for token, (content, special) in self._added.items() if special and content == text), None)

    def written(self, token: int) -> str | None:
        """The vocabulary entry that `decode` writes for an id; None for special tokens and ids without an entry, which it leaves out."""
        return None if self._added.get(token, ("", False))[1] else self.library.id_to_token(token)

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that a token stands for, be they a part of a character; None for ids without an entry, or where that is not known.

        A special token stands for its own text.
        """
        if token in self._added:
            return self._added[token][0].encode()
        piece, spelled = self.written(token), SENTENCEPIECE if self.kind == "SentencePieces" else self.token_bytes
        return None if piece is None or spelled is None else spelled.spell(piece)

    @cached_property
    def token_bytes(self) -> TokenBytes | None:
        """How the bytes of vocabulary entries are found; None for a tokenizer that gives them none."""
        return read_token_bytes(self.decoder)

    @cached_property
    def decoder(self) -> dict[str, Any] | None:
        """The "decoder" of tokenizer.json; None if there is none."""
        return _decoder(self.library)

    @cached_property
    def _added(self) -> dict[int, tuple[str, bool]]:
        """The text of each special or added token by its id, and whether it is special."""
        from tokenizers import Tokenizer as Library

        if not isinstance(self.library, Library):
            return {number: (text, True) for number, text in self.library.special().items()}
        return {number: (token.content, token.special) for number, token in self.library.get_added_tokens_decoder().items()}

    @cached_property  # making it takes a second where the vocabulary is large
    def without_added(self) -> Tokenizer:
        """A copy of this tokenizer that treats those texts like any other text. Raises CheckpointError."""
        from tokenizers import Tokenizer as Library

        if not isinstance(self.library, Library):
            return self
        values = json.loads(self.library.to_str())
        with _damage("the tokenizer does not work without its added tokens"):
            return Tokenizer(Library.from_str(json.dumps({**values, "added_tokens": [], "post_processor": None})))

    def size(self) -> int:
        """How many entries the vocabulary has."""
        return self.library.get_vocab_size(with_added_tokens=True)
