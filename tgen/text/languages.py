"""The language codes of a translator between many languages: which there are, and which of them a user means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from tgen.errors import UsageError
from tgen.text.files.languages import CODE
from tgen.text.tokenizer import Tokenizer

SHOWN = 6  # codes in one hint


class Languages:
    """The special tokens of a tokenizer that name languages, such as `eng_Latn`, `en_XX` and `__en__`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        named = [text for text, special in tokenizer.added().items() if special and CODE.fullmatch(text)]
        self.codes = {text: number for text in named if (number := tokenizer.special_id(text)) is not None}
        self.ids = frozenset(self.codes.values())

    def find(self, asked: str, option: str) -> int:
        """The id of the code that is `asked` for: as it stands, or by its beginning if only one code has it.

        Raises UsageError, naming like codes.
        """
        short = asked.strip("_")
        exact = [code for code in self.codes if code.strip("_") == short]
        found = exact or [code for code in self.codes if code.startswith(f"{short}_")]
        if len(found) == 1:
            return self.codes[found[0]]
        if not self.codes:
            raise UsageError(f"{option} {asked}: the model's tokenizer has no language codes", "leave --from and --to out")
        near = found or difflib.get_close_matches(short, self.codes, n=SHOWN, cutoff=0.0)
        problem = "is not one code but several" if found else f"is none of the model's {len(self.codes)} language codes"
        raise UsageError(f"{option} {asked} {problem}", f"nearest: {', '.join(near[:SHOWN])}")

    def example(self) -> str:
        """A code to show in a hint."""
        return next((code for code in self.codes if code.startswith(("fra", "fr", "__fr"))), next(iter(self.codes)))

    def from_language(self, ids: Sequence[int], source: int) -> list[int]:
        """A text's ids with another language's code in place of the one that the tokenizer put at its beginning or end."""
        if ids and ids[0] in self.ids:
            return [source, *ids[1:]]
        return [*ids[:-1], source] if ids and ids[-1] in self.ids else list(ids)
