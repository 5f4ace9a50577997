"""Text to ids and back, through the tokenizers or the sentencepiece library. Knows no model but the size of its vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tgen.errors import CheckpointError
from tgen.files import refuse_lfs_pointer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from tgen.text.sentencepiece import SentencePieces


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
        try:
            library = Library.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} is damaged: {error}", "download the file again") from error
        largest = max(library.get_vocab(with_added_tokens=True).values(), default=-1)
        if vocab is not None and largest >= vocab:
            message = f"{path} has ids up to {largest}, but the model's vocabulary ends at {vocab - 1}"
            raise CheckpointError(message, "tokenizer and weights belong to different models; download both again")
        library.no_padding()
        library.no_truncation()
        return cls(library)

    @property
    def kind(self) -> str:
        """What cuts the text: BPE, Unigram, WordPiece ... or SentencePiece."""
        return type(getattr(self.library, "model", self.library)).__name__

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, with the start and end tokens that the tokenizer itself adds if `special`."""
        return self.library.encode(text, add_special_tokens=special).ids

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of ids; special tokens are left out unless asked for."""
        return self.library.decode(ids, skip_special_tokens=not special)

    def piece(self, token: int) -> str:
        """A token as the vocabulary spells it, such as `Ġonce`; ids without an entry as `<id>`."""
        piece = self.library.id_to_token(token)
        return f"<{token}>" if piece is None else piece

    def id_of(self, piece: str) -> int | None:
        """The id of a vocabulary entry, None if there is none of this spelling."""
        return self.library.token_to_id(piece)

    def size(self) -> int:
        """How many entries the vocabulary has."""
        return self.library.get_vocab_size(with_added_tokens=True)
