"""Turns source texts into target texts with an encoder-decoder, many at a time. Knows texts and sessions, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tgen.engine.beam import Search, adjustment, beam_search, read_beams
from tgen.executors.session import OpenSession
from tgen.options import GenerationOptions
from tgen.sampling.rules import Rules, read_rules
from tgen.text.fitting import fitting
from tgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Translation:
    """A target text, and how many of its source's tokens the model could not read."""

    text: str
    left_out: int = 0


class Translator:
    """An encoder-decoder that answers each text with its likeliest target, by greedy or beam search."""

    def __init__(
        self,
        open_session: OpenSession,
        tokenizer: Tokenizer,
        *,
        context: int,
        vocab: int,
        start_token: int,
        end_tokens: frozenset[int],
        generation: dict[str, Any],
        options: GenerationOptions,
    ) -> None:
        """`generation` is generation_config.json, whose rules are kept; `options` settle beams, length and repetition penalty."""
        self.open_session = open_session
        self.tokenizer = tokenizer
        self.context = context
        self.start_token = start_token
        self.end_tokens = end_tokens
        self.options = options
        self.limit = min(options.max_new_tokens, context - 1)
        self.settings = read_beams(generation, options.num_beams)
        self.rules: Rules = read_rules(generation, replace(options, max_new_tokens=self.limit), end_tokens, vocab, prompt=1)

    def translate(self, texts: Sequence[str]) -> list[Translation]:
        """The target of each text, in order; a text without anything to read has an empty one. All share one batch."""
        sources = [self.tokenizer.encode(text) if text.strip() else [] for text in texts]
        cut = [fitting(ids, self.context) for ids in sources]
        targets = [self.tokenizer.decode(ids) for ids in self.answers(cut)]
        return [Translation(text, len(source) - len(ids)) for text, source, ids in zip(targets, sources, cut, strict=True)]

    def answers(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same in ids, without the start token; nothing for nothing."""
        read = [ids for ids in sources if ids]
        searches = [Search(self.settings, self.end_tokens, self.limit) for _ in read]
        if read:
            session = self.open_session(self.limit + 1, read)
            beam_search(session, [[self.start_token]] * len(read), searches, adjustment(self.options, self.rules))
        found = iter(searches)
        return [next(found).best(1)[0] if ids else [] for ids in sources]
