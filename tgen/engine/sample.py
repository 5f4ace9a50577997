"""Samples: from logits to tokens, from tokens to whole characters, from characters to text without stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgen.arrays import Logits
from tgen.engine.guess import Guesses
from tgen.engine.job import Next
from tgen.events import Event, Finished, FinishReason, Piece, Special, Token, TokenScore
from tgen.options import GenerationOptions
from tgen.sampling.logits import NumericalError, log_softmax
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

        Returns the text that this token completes, or what special token it is, and Finished if the sample ends here.
        """
        self.ids.append(token)
        if self._logprobs is not None and logits is not None:
            self._tokens.append(scored(self._tokenizer, token, logits, self._logprobs))
        if token in self._end_tokens:
            return self.end("stop")
        text, stopped = self._stops.feed(self._detokenizer.feed(token))
        if stopped:
            return self._finish("stop", text)
        if last or len(self.ids) >= self._most:
            return self._finish("stop" if last else "length", text + self._remainder())
        special = self._tokenizer.special_text(token)
        if special is not None:
            return [Special(self.index, special)]
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


@dataclass(frozen=True, slots=True)
class Line:
    """One sample that has not ended: its sampler, its text, and its guesses if it makes any."""

    sampler: Sampler
    sample: Sample
    guesses: Guesses | None = None

    def take(self, logits: Logits) -> tuple[list[Event], Next]:
        """Draw a token at each of the row's positions [positions, vocab], up to the first that is not the guess.

        Returns the events, and the row that goes on from here (of parent 0) if the sample has not ended. Logits that are not finite end
        the draws: the next step reads their position again, and raises the error.
        """
        events: list[Event] = []
        tokens: list[int] = []
        guesses = self.guesses.offered if self.guesses else []
        for place, row in enumerate(logits):
            guess = guesses[place] if place < len(guesses) else None
            proposal = self.guesses.proposal(place) if self.guesses and guess is not None else None
            try:
                token = self.sampler.draw(row, guess, proposal)
            except NumericalError:
                if not tokens:
                    raise
                break
            tokens.append(token)
            events += self.sample.feed(token, row, last=self.sampler.finished)
            if self.sample.reason is not None or token != guess:
                break
        wrong = self.guesses.take(tokens) if self.guesses else 0
        return [self.counted(event) for event in events], Next(0, tokens[-1], self.guesses, wrong)

    def counted(self, event: Event) -> Event:
        """The event; if it is Finished, with the number of guesses."""
        if self.guesses is None or not isinstance(event, Finished):
            return event
        return replace(event, guessed=self.guesses.made, guessed_right=self.guesses.right)


class Samples:
    """The samples of one request, drawn independently of one another; each leaves when it has ended."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._going = list(lines)
        self._shared = True  # at first, all samples share the prompt's row

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
        """Draw tokens for each sample from its positions among the logits [positions, vocab]."""
        events: list[Event] = []
        following, going = [], []
        start = 0
        for row, line in enumerate(self._going):
            end = start + 1 + (len(line.guesses.offered) if line.guesses else 0)
            new, goes_on = line.take(logits if self._shared else logits[start:end])
            events += new
            if line.sample.reason is None:
                following.append(goes_on if self._shared else replace(goes_on, parent=row))
                going.append(line)
            start = end
        self._going, self._shared = going, False
        return events, following

    def cancel(self, reason: FinishReason = "cancelled") -> list[Event]:
        """End all samples now."""
        return [line.counted(event) for line in self._going for event in line.sample.end(reason)]


class Silence:
    """The writer of a request that only reads its prompt: its samples end at once."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:  # noqa: ARG002
        """Finished for each sample."""
        return self._ended("length"), []

    def cancel(self, reason: FinishReason = "cancelled") -> list[Event]:
        """End all samples now."""
        return self._ended(reason)

    def _ended(self, reason: FinishReason) -> list[Event]:
        return [Finished(index, reason, 0, 0.0, 0.0) for index in range(self._samples)]


def scored(tokenizer: Tokenizer, drawn: int, logits: Logits, count: int) -> Token:
    """A token with its log-probability, and those of the `count` likeliest tokens."""
    logprobs = log_softmax(logits)
    best = ranked(logprobs, count)

    def score(token: int) -> TokenScore:
        # A special token is no part of the text, so it adds no bytes to it.
        spelled = None if tokenizer.written(token) is None else tokenizer.bytes_of(token)
        return TokenScore(token, tokenizer.decode([token], special=True), float(logprobs[token]), spelled)

    return Token(score(drawn), tuple(score(int(token)) for token in best))
