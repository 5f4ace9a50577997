"""One sample on its way: ids to whole characters to text without stop strings. Knows no session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgen.engine.loop import Drawn
from tgen.events import FinishReason, Piece, Token, TokenScore
from tgen.options import GenerationOptions
from tgen.sampling.sampler import Candidates, Ids, Values, log_softmax, top_k
from tgen.text.detokenizer import Detokenizer
from tgen.text.stopping import StopStrings
from tgen.text.tokenizer import Tokenizer


class Row:
    """Takes the tokens of one sample, gives its text."""

    def __init__(
        self, index: int, tokenizer: Tokenizer, prompt: Sequence[int], options: GenerationOptions, end_tokens: frozenset[int]
    ) -> None:
        self.index = index
        self.count = 0
        self._tokenizer = tokenizer
        self._options = options
        self._end_tokens = end_tokens
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = StopStrings(options.stop)
        self._tokens: list[Token] = []
        self.reason: FinishReason | None = None

    def feed(self, drawn: Drawn) -> Piece | None:
        """Take a token with its logits; the text that became showable with it, if any. Sets `reason` when the sample has ended."""
        if self._options.logprobs is not None:
            self._tokens.append(_scored(self._tokenizer, drawn, self._options.logprobs))
        return self.take(drawn.token, drawn.last)

    def take(self, token: int, last: bool = False) -> Piece | None:
        """The same for a token alone; `last` says that the text is complete with it."""
        self.count += 1
        options = self._options
        if token in self._end_tokens and not options.ignore_eos:
            self.reason = "stop"
            return self.rest()
        text, stopped = self._stops.feed(self._detokenizer.feed(token))
        if stopped:
            self.reason = "stop"
            return self._piece(text)
        if last or self.count >= options.max_new_tokens:
            self.reason = "stop" if last else "length"
            return self._piece(text + self._remainder())
        return self._piece(text) if text else None

    def rest(self) -> Piece | None:
        """What was held back, when the sample ends here."""
        text = self._remainder()
        return self._piece(text) if text or self._tokens else None

    def _remainder(self) -> str:
        text, stopped = self._stops.feed(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()

    def _piece(self, text: str) -> Piece:
        tokens, self._tokens = tuple(self._tokens), []
        return Piece(self.index, text, tokens)


def _scored(tokenizer: Tokenizer, drawn: Drawn, count: int) -> Token:
    """A token with its log-probability and those of the `count` likeliest."""
    logprobs = log_softmax(drawn.logits)
    best = _best(logprobs, count)

    def score(token: int) -> TokenScore:
        return TokenScore(token, tokenizer.decode([token], special=True), float(logprobs[token]))

    return Token(score(drawn.token), tuple(score(int(token)) for token in best))


def _best(logprobs: Values, count: int) -> Ids:
    """The ids of the highest log-probabilities, highest first; among equals the lower ids first."""
    best = top_k(Candidates(np.arange(len(logprobs)), logprobs), count)
    return best.ids[np.argsort(-best.logits, kind="stable")][:count]
