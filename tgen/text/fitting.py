"""Texts that are longer than a model reads."""

from __future__ import annotations


def fitting(ids: list[int], longest: int) -> list[int]:
    """The ids of a text that a model can read: of too many the end is left out, but not the last one, which the tokenizer adds."""
    return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]
