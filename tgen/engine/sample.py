"""Samples: from logits to tokens, from tokens to whole characters, from characters to text without stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from tgen.arrays import Logits
from tgen.engine.scheduler import Next
from tgen.events import Event, Finished, FinishReason, Piece, Token, TokenScore
from tgen.options import GenerationOptions
from tgen.sampling.logits import log_softmax
from tgen.sampling.sampler import Sampler
from tgen.sampling.selection import ranked
from tgen.text.detokenizer import Detokenizer
from tgen.text.stopping import StopStrings
from tgen.text.tokenizer import Tokenizer


class Sample:
    """One sample: turns its tokens into text."""

    def __init__(
        self, index: int, tokenizer: Tokenizer, prompt: Sequence[int], options: GenerationOptions, end_tokens: frozenset[int]
    ) -> None:
        self.index = index
        self.ids: list[int] = []
        self.reason: FinishReason | None = None
        self._tokenizer = tokenizer
        self._most = options.max_new_tokens
        self._logprobs = options.logprobs
        # A stop string that is a special token never appears in the text, so its id stands for it.
        stops = {text: tokenizer.special_id(text) for text in options.stop}
        ends = frozenset() if options.ignore_eos else end_tokens
        self._end_tokens = ends | {token for token in stops.values() if token is not None}
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = StopStrings([text for text, token in stops.items() if token is None])
        self._tokens: list[Token] = []

    def feed(self, token: int, logits: Logits | None = None, *, last: bool = False) -> list[Event]:
        """Take a token; `last` says that no token may follow it. Only log-probabilities need the `logits` [vocab].

        Returns the text that this token completes, and Finished if the sample ends here.
        """
        self.ids.append(token)
        if self._logprobs is not None and logits is not None:
            self._tokens.append(_scored(self._tokenizer, token, logits, self._logprobs))
        if token in self._end_tokens:
            return self.end("stop")
        text, stopped = self._stops.feed(self._detokenizer.feed(token))
        if stopped:
            return self._finish("stop", text)
        if last or len(self.ids) >= self._most:
            return self._finish("stop" if last else "length", text + self._remainder())
        return [self._piece(text)] if text else []

    def end(self, reason: FinishReason) -> list[Event]:
        """End the sample; returns the text that was held back, and Finished."""
        return self._finish(reason, self._remainder())

    def _finish(self, reason: FinishReason, text: str) -> list[Event]:
        self.reason = reason
        finished = Finished(self.index, reason, len(self.ids), 0.0, 0.0, tuple(self.ids))
        return [self._piece(text), finished] if text or self._tokens else [finished]

    def _remainder(self) -> str:
        text, stopped = self._stops.feed(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()

    def _piece(self, text: str) -> Piece:
        tokens, self._tokens = tuple(self._tokens), []
        return Piece(self.index, text, tokens)


class Samples:
    """The samples of one request, drawn independently of one another; each leaves when it has ended."""

    def __init__(self, samplers: Sequence[Sampler], samples: Sequence[Sample]) -> None:
        self._going = list(zip(samplers, samples, strict=True))

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
        """Draw a token for each sample from its row of logits [rows, vocab]; at first all samples share one row."""
        events: list[Event] = []
        following, going = [], []
        shared = len(logits) == 1
        for row, (sampler, sample) in enumerate(self._going):
            parent = 0 if shared else row
            token = sampler.draw(logits[parent])
            events += sample.feed(token, logits[parent], last=sampler.finished)
            if sample.reason is None:
                following.append(Next(parent, token))
                going.append((sampler, sample))
        self._going = going
        return events, following

    def cancel(self) -> list[Event]:
        """End all samples now."""
        return [event for _, sample in self._going for event in sample.end("cancelled")]


def _scored(tokenizer: Tokenizer, drawn: int, logits: Logits, count: int) -> Token:
    """A token with its log-probability, and those of the `count` likeliest tokens."""
    logprobs = log_softmax(logits)
    best = ranked(logprobs, count)

    def score(token: int) -> TokenScore:
        # A special token is no part of the text, so it adds no bytes to it.
        spelled = None if tokenizer.written(token) is None else tokenizer.bytes_of(token)
        return TokenScore(token, tokenizer.decode([token], special=True), float(logprobs[token]), spelled)

    return Token(score(drawn), tuple(score(int(token)) for token in best))
