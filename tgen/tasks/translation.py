"""Turns source texts into target texts with an encoder-decoder, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgen.engine.generator import Generator
from tgen.engine.request import Request
from tgen.errors import TgenError
from tgen.events import Piece
from tgen.options import Resolved
from tgen.text.fitting import fitting


@dataclass(frozen=True, slots=True)
class Translation:
    """A target text, and how many of its source's tokens the model could not read."""

    text: str
    left_out: int = 0


class Translator:
    """Answers each text with its likeliest target, by greedy or beam search."""

    def __init__(self, generator: Generator, resolved: Resolved, at_once: int = 16) -> None:
        """`at_once` texts are translated together; `resolved` gives beams, length and penalties. The search never samples."""
        options = replace(resolved.options, temperature=0.0, samples=1, overflow="shrink")
        self._generator = generator
        self._resolved = replace(resolved, options=options)
        self._rows = at_once * options.num_beams

    def translate(self, texts: Sequence[str]) -> list[Translation]:
        """The target of each text, in order; a text of white space alone has an empty one. Raises TgenError."""
        context, encode = self._generator.context, self._generator.tokenizer.encode
        sources = [encode(text) if text.strip() else [] for text in texts]
        cut = [fitting(ids, context) for ids in sources]
        # Texts of like lengths run side by side: then they end at about the same time, and little of a pass is spent on few rows.
        order = sorted((number for number, ids in enumerate(cut) if ids), key=lambda number: len(cut[number]))
        requests = iter([Request(number, cut[number], self._resolved) for number in order])
        targets = [""] * len(texts)
        for number, event in self._generator.run_many(lambda _: next(requests, None), self._rows):
            if isinstance(event, TgenError):
                raise event
            if isinstance(event, Piece):
                targets[number] += event.text
        return [Translation(text, len(source) - len(ids)) for text, source, ids in zip(targets, sources, cut, strict=True)]
