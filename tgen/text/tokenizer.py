"""Text to ids and back, through the tokenizers or the sentencepiece library. Knows no model but the size of its vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT, refuse_lfs_pointer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from tgen.text.sentencepiece import SentencePieces


MAX_BYTES, MAX_STRIP = 200 * 2**20, 100
TRIAL = "Once upon a time, 12 [MASK]\n"


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn whatever the library raises into CheckpointError: bare Exceptions, and panics, which are not even those."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: {error}", f"correct tokenizer.json, or {DOWNLOAD_HINT}") from error


def _refuse_wide_strip(library: Library) -> None:
    """Raise ValueError for a decoder that strips more characters than a token has: the library panics where a token is all of them."""
    state = b"" if library.decoder is None else library.decoder.__getstate__()
    if any(int(width) > MAX_STRIP for width in re.findall(rb'"(?:start|stop)":(\d+)', state)):
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
            raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB, which no such file is", DOWNLOAD_HINT)
        with _damage(f"{path} is damaged"):
            library = Library.from_file(str(path))
            library.no_padding()
            library.no_truncation()
            _refuse_wide_strip(library)
            trial = library.encode(TRIAL).ids  # some damage shows only when it is used
            library.decode(trial)
        largest = max([*library.get_vocab(with_added_tokens=True).values(), *trial], default=-1)
        if vocab is not None and largest >= vocab:
            message = f"{path} has ids up to {largest}, but the model's vocabulary ends at {vocab - 1}"
            raise CheckpointError(message, "tokenizer and weights belong to different models; download both again")
        return cls(library)

    @property
    def kind(self) -> str:
        """What cuts the text: BPE, Unigram, WordPiece ... or SentencePiece."""
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
        """The texts that become one token before anything else is done, and whether each is special."""
        if not hasattr(self.library, "get_added_tokens_decoder"):
            return {}
        return {token.content: token.special for token in self.library.get_added_tokens_decoder().values()}

    @cached_property  # making it takes a second where the vocabulary is large
    def without_added(self) -> Tokenizer:
        """The same tokenizer, to which those texts are texts like any other. Raises CheckpointError."""
        from tokenizers import Tokenizer as Library

        if not isinstance(self.library, Library):
            return self
        values = json.loads(self.library.to_str())
        with _damage("the tokenizer cannot do without its added tokens"):
            return Tokenizer(Library.from_str(json.dumps({**values, "added_tokens": [], "post_processor": None})))

    def size(self) -> int:
        """How many entries the vocabulary has."""
        return self.library.get_vocab_size(with_added_tokens=True)
