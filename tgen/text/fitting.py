"""Shortens texts that are longer than a model reads."""

from __future__ import annotations


def fitting(ids: list[int], longest: int, ends: int = 1) -> list[int]:
    """The ids of a text, at most `longest`: its end is cut off, except the last `ends` ids, which the tokenizer adds."""
    return ids if len(ids) <= longest else [*ids[: longest - ends], *ids[-ends:]]
