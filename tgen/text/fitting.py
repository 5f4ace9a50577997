"""Shortens texts that are longer than a model reads."""

from __future__ import annotations


def fitting(ids: list[int], longest: int) -> list[int]:
    """The ids of a text, at most `longest`: its end is cut off, but the last id stays, for it is the end token that the tokenizer adds."""
    return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]
