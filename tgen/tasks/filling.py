"""Finds the masks in a text and the likeliest tokens in their places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tgen.arrays import Logits
from tgen.errors import UsageError
from tgen.sampling.logits import log_softmax, require_finite
from tgen.sampling.selection import ranked
from tgen.text.tokenizer import Tokenizer

MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class Filling:
    """A token in place of a mask, and its probability."""

    id: int
    text: str
    probability: float


def prepare_masks(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    """The ids of a text, and the places of its masks. Raises UsageError if the text has no mask, or the tokenizer no mask token."""
    own = next((mask for mask in MASKS if tokenizer.id_of(mask) is not None), None)
    if own is None:
        raise UsageError("the model's tokenizer has no mask token", f"one of {' and '.join(MASKS)} is expected")
    for mask in MASKS:
        text = text.replace(mask, own)
    ids = tokenizer.encode(text)
    places = [place for place, token in enumerate(ids) if token == tokenizer.id_of(own)]
    if not places:
        raise UsageError("there is no mask in the text", f"write {own} where a word is to be found")
    return ids, places


def fillings(tokenizer: Tokenizer, logits: Logits, count: int) -> list[Filling]:
    """The likeliest tokens for a mask with these logits, the likeliest first. If a token is only white space, its text is its spelling in
    the vocabulary.
    """
    require_finite(logits, "at a mask")
    logprobs = log_softmax(logits)
    best: list[int] = ranked(logprobs, count).tolist()
    return [Filling(i, tokenizer.decode([i], special=True).strip() or tokenizer.piece(i), float(np.exp(logprobs[i]))) for i in best]
