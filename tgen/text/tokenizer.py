"""Turns text into ids and back, through the tokenizers or the sentencepiece library."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import UsageError
from tgen.text.files.reading import damage, decoder_of, read_library
from tgen.text.token_bytes import SENTENCEPIECE, TokenBytes, read_token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from tgen.text.files.sentencepiece import SentencePieces


class Tokenizer:
    """A folder's tokenizer, whichever of the known files holds it."""

    def __init__(self, library: Library | SentencePieces, vocab: int | None = None) -> None:
        """`vocab` is how many embeddings the model has, where that is known: `encode` refuses a text with an id beyond them."""
        self.library = library
        self._vocab = vocab

    @classmethod
    def load(cls, folder: Path, vocab: int | None = None) -> Tokenizer:
        """The tokenizer of a folder, for a model of `vocab` embeddings. Raises CheckpointError if there is none or it is damaged."""
        return cls(read_library(folder), vocab)

    @property
    def kind(self) -> str:
        """The algorithm that cuts the text: BPE, Unigram, WordPiece ... or SentencePiece."""
        return type(getattr(self.library, "model", self.library)).__name__

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, with the start and end tokens that the tokenizer itself adds if `special`.

        Raises UsageError for an id that the model lacks.
        """
        with damage("the tokenizer cannot read this text"):
            ids = self.library.encode(text, add_special_tokens=special).ids
        if self._vocab is not None and max(ids, default=-1) >= self._vocab:
            token = max(ids)
            message = f"the text holds {self.piece(token)!r}, id {token}, but the model's vocabulary ends at {self._vocab - 1}"
            raise UsageError(message, "leave it out: the model has no embedding for it")
        return ids

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of ids; special tokens are left out unless asked for."""
        with damage("the tokenizer cannot write these tokens"):
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

    def special_text(self, token: int) -> str | None:
        """The text of a special token; None for any other."""
        text, special = self._added.get(token, ("", False))
        return text if special else None

    def written(self, token: int) -> str | None:
        """The vocabulary entry that `decode` writes for an id; None for special tokens and ids without an entry, which it leaves out."""
        return self.library.id_to_token(token) if self.special_text(token) is None else None

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that a token stands for, even a part of a character; None for ids without an entry, and where the bytes are unknown.

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
        from tokenizers import Tokenizer as Library

        return decoder_of(self.library) if isinstance(self.library, Library) else None

    @cached_property
    def _added(self) -> dict[int, tuple[str, bool]]:
        """The text of each special or added token by its id, and whether it is special."""
        from tokenizers import Tokenizer as Library

        if not isinstance(self.library, Library):
            return {number: (text, True) for number, text in self.library.special().items()}
        return {number: (token.content, token.special) for number, token in self.library.get_added_tokens_decoder().items()}

    @cached_property  # making it takes a second where the vocabulary is large
    def without_added(self) -> Tokenizer:
        """A copy of this tokenizer that treats the texts of added tokens like any other text. Raises CheckpointError."""
        from tokenizers import Tokenizer as Library

        if not isinstance(self.library, Library):
            return self
        values = json.loads(self.library.to_str())
        with damage("the tokenizer does not work without its added tokens"):
            return Tokenizer(Library.from_str(json.dumps({**values, "added_tokens": [], "post_processor": None})), self._vocab)

    def size(self) -> int:
        """How many entries the vocabulary has."""
        return self.library.get_vocab_size(with_added_tokens=True)
