"""Turns source texts into target texts with an encoder-decoder, many at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgen.engine.generator import Generator
from tgen.engine.request import Request
from tgen.errors import TgenError, UsageError
from tgen.events import Piece
from tgen.options import Resolved
from tgen.text.fitting import fitting
from tgen.text.languages import Languages


@dataclass(frozen=True, slots=True)
class Translation:
    """A target text, and how many tokens of its source were cut off because the source is longer than the context."""

    text: str
    left_out: int = 0


class Translator:
    """Answers each text with its likeliest target, by greedy or beam search."""

    def __init__(
        self, generator: Generator, resolved: Resolved, at_once: int = 16, source: str | None = None, target: str | None = None
    ) -> None:
        """`at_once` texts are translated together; `resolved` gives beams, length and penalties. The search never samples.

        `source` and `target` are languages, for a multilingual model. Raises UsageError for a language that the model lacks, and for a
        multilingual model without a target.
        """
        self._languages = Languages(generator.tokenizer)
        self._source = None if source is None else self._languages.find(source, "--from")
        generator = _aimed(generator, self._languages, target)
        options = replace(resolved.options, temperature=0.0, samples=1, overflow="shrink")
        self._generator = generator
        self._resolved = replace(resolved, options=options)
        self._rows = at_once * options.num_beams

    def translate(self, texts: Sequence[str]) -> list[Translation]:
        """The target of each text, in order. The target of an empty text is empty. Raises TgenError."""
        context = self._generator.context
        sources = [self._encode(text) if text.strip() else [] for text in texts]
        cut = [fitting(ids, context, 2 if ids and ids[-1] in self._languages.ids else 1) for ids in sources]
        # Texts of similar length run together, so that they end at about the same time, and few passes have only few rows.
        order = sorted((number for number, ids in enumerate(cut) if ids), key=lambda number: len(cut[number]))
        requests = iter([Request(number, cut[number], self._resolved) for number in order])
        targets = [""] * len(texts)
        for number, event in self._generator.run_many(lambda _: next(requests, None), self._rows):
            if isinstance(event, TgenError):
                raise event
            if isinstance(event, Piece):
                targets[number] += event.text
        return [Translation(text, len(source) - len(ids)) for text, source, ids in zip(targets, sources, cut, strict=True)]

    def _encode(self, text: str) -> list[int]:
        ids = self._generator.tokenizer.encode(text)
        return ids if self._source is None else self._languages.from_language(ids, self._source)


def _aimed(generator: Generator, languages: Languages, target: str | None) -> Generator:
    """The generator whose answers are in the target language.

    The code of the language is their first token, or their start token if the folder's start token is the code of a language.
    """
    starts_with_code = generator.limits.answer_start in languages.ids
    if target is None:
        if len(languages.codes) > 1 and generator.defaults.forced_first is None and not starts_with_code:
            message = f"the model translates between {len(languages.codes)} languages, and --to is missing"
            raise UsageError(message, f"give --to with a code such as {languages.example()}; --from names the language of the text")
        return generator
    code, aimed = languages.find(target, "--to"), copy.copy(generator)
    if starts_with_code:
        aimed.limits = replace(generator.limits, answer_start=code)
    else:
        aimed.defaults = replace(generator.defaults, forced_first=code)
    return aimed
