"""The one entry the surfaces use: a prompt and options in, a stream of events out. Knows no command line and no tensor framework."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tgen.engine.loop import Drawn, Loop
from tgen.engine.sampling import Candidates, Ids, Sampler, Values, log_softmax, top_k
from tgen.engine.session import Session
from tgen.engine.stopping import StopStrings
from tgen.errors import CapacityError, UsageError
from tgen.events import Event, Finished, FinishReason, Note, Piece, Started, Token, TokenScore
from tgen.options import GenerationOptions, Resolved, resolve
from tgen.text.detokenizer import Detokenizer
from tgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt as ids that fit, options that fit, and what a person should know about how they were made to fit."""

    ids: list[int]
    options: GenerationOptions
    seed: int
    notes: tuple[str, ...] = ()


class Generator:
    """A loaded model that continues prompts."""

    def __init__(
        self,
        open_session: Callable[[int], Session],
        tokenizer: Tokenizer,
        *,
        context: int,
        end_tokens: frozenset[int] = frozenset(),
        start_token: int | None = None,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """`open_session` takes the number of ids that will be read; `defaults` is generation_config.json."""
        self.open_session = open_session
        self.tokenizer = tokenizer
        self.context = context
        self.end_tokens = end_tokens
        self.start_token = start_token
        self.defaults = defaults or {}

    def generate(self, prompt: str, **options: Any) -> str:
        """The continuation of a prompt as one string; options are the fields of `GenerationOptions`."""
        return "".join(event.text for event in self.stream(prompt, **options) if isinstance(event, Piece) and event.index == 0)

    def stream(self, prompt: str, *, cancelled: Callable[[], bool] = lambda: False, **options: Any) -> Iterator[Event]:
        """The continuation as events: Notes if any, Started, Pieces as their characters become whole, and one Finished for each sample.

        Raises UsageError for options that cannot be meant, CapacityError for a prompt that does not fit the context.
        """
        yield from self.run(prompt, resolve(options, {}, self.defaults), cancelled)

    def run(self, prompt: str, resolved: Resolved, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """The same for options that were settled elsewhere. `cancelled` is asked once a token."""
        prepared = self.prepare(prompt, resolved)
        yield from (Note(text) for text in prepared.notes)
        yield Started(len(prepared.ids), prepared.options.max_new_tokens, prepared.seed)
        yield from _continue(self, prepared, cancelled)

    def prepare(self, prompt: str, resolved: Resolved) -> Prepared:
        """Ids and limits for a prompt, under the overflow policy. Raises CapacityError, UsageError."""
        options = resolved.options
        ids = self.tokenizer.encode(prompt)
        if not ids and self.start_token is not None:
            ids = [self.start_token]
        if not ids:
            raise UsageError("the prompt is empty and the model has no start token", "give a prompt")
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        notes: list[str] = []
        wanted = len(ids) + options.max_new_tokens
        if wanted > self.context and options.overflow == "truncate-left":
            kept = self._truncate(ids, options.max_new_tokens)
            if len(kept) < len(ids):
                dropped = len(ids) - len(kept)
                notes.append(f"the prompt's first {dropped} of {len(ids)} tokens were left out to fit the context of {self.context}")
            ids = kept
        room = self.context - len(ids)
        if room < 1:
            raise CapacityError(
                f"the prompt has {len(ids)} tokens, the model's context is {self.context}",
                f"shorten it by {1 - room} tokens or more, or use --overflow truncate-left",
            )
        if options.max_new_tokens > room:
            if options.overflow != "shrink" and resolved.origins.get("max_new_tokens") in ("asked", "environment"):
                notes.append(
                    f"--max-new-tokens {options.max_new_tokens} is more than fits: prompt {len(ids)} + new {room} = context {self.context}"
                )
            options = replace(options, max_new_tokens=room)
        return Prepared(ids, options, seed, tuple(notes))

    def _truncate(self, ids: list[int], new: int) -> list[int]:
        """Drop the prompt's oldest ids until `new` more fit, but keep a start token, and at least half the context for the prompt."""
        room = max(self.context - new, self.context // 2, 1)
        head = ids[:1] if ids[0] == self.start_token and room > 1 else []
        return head + ids[len(ids) - (room - len(head)) :] if len(ids) > room else ids


class _Row:
    """One sample on its way: ids to whole characters to text without stop strings."""

    def __init__(self, generator: Generator, prepared: Prepared, index: int) -> None:
        self.index = index
        self.count = 0
        self._generator = generator
        self._options = prepared.options
        self._detokenizer = Detokenizer(generator.tokenizer, prepared.ids)
        self._stops = StopStrings(prepared.options.stop)
        self._tokens: list[Token] = []
        self.reason: FinishReason | None = None

    def feed(self, drawn: Drawn) -> Piece | None:
        """Take a token; the text that became showable with it, if any. Sets `reason` when the sample has ended."""
        self.count += 1
        options = self._options
        if options.logprobs is not None:
            self._tokens.append(_scored(self._generator.tokenizer, drawn, options.logprobs))
        if drawn.token in self._generator.end_tokens and not options.ignore_eos:
            self.reason = "stop"
            return self.rest()
        text, stopped = self._stops.feed(self._detokenizer.feed(drawn.token))
        if stopped:
            self.reason = "stop"
            return self._piece(text)
        if self.count >= options.max_new_tokens:
            self.reason = "length"
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


def _continue(generator: Generator, prepared: Prepared, cancelled: Callable[[], bool]) -> Iterator[Event]:
    """Run the loop and turn its columns into events."""
    options = prepared.options
    started = time.perf_counter()
    session = generator.open_session(len(prepared.ids) + options.max_new_tokens)
    samplers = [Sampler(options, prepared.seed, row, prepared.ids) for row in range(options.samples)]
    loop = Loop(session, [prepared.ids], samplers, [0] * options.samples)
    rows = [_Row(generator, prepared, index) for index in range(options.samples)]
    prefill_seconds = time.perf_counter() - started
    while rows:
        for row, drawn in zip(rows, loop.column(), strict=True):
            piece = row.feed(drawn)
            if piece is not None:
                yield piece
        if cancelled():
            for row in rows:
                if row.reason is None:
                    row.reason = "cancelled"
                    rest = row.rest()
                    if rest is not None:
                        yield rest
        seconds = time.perf_counter() - started
        for row in rows:
            if row.reason is not None:
                yield Finished(row.index, row.reason, row.count, prefill_seconds, seconds - prefill_seconds)
        alive = [position for position, row in enumerate(rows) if row.reason is None]
        if alive and len(alive) < len(rows):
            loop.keep(alive)
        rows = [rows[position] for position in alive]


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
