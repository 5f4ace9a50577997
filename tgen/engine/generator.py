"""The one entry the surfaces use: a prompt and options in, a stream of events out. Knows no command line and no tensor framework."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tgen.engine.beam import Search, adjustment, beam_search, read_beams
from tgen.engine.loop import CHUNK, Loop, chunks
from tgen.engine.prefix import Memory
from tgen.engine.sample import Row
from tgen.errors import CapacityError, UsageError
from tgen.events import Event, Finished, Note, Piece, Reading, Started
from tgen.executors.session import OpenSession, Session
from tgen.options import GenerationOptions, Resolved, resolve
from tgen.sampling.rules import Rules, read_rules
from tgen.sampling.sampler import Sampler, Trace
from tgen.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tgen.constraint.guard import Guard, Guards


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt as ids that fit, options that fit, and what a person should know about how they were made to fit.

    `ids` are what a decoder reads first; `source` is what an encoder reads, if there is one. `cut_note` is for a text that did not end
    before the context did: only then does it matter that fewer tokens fit than were asked for.
    """

    ids: list[int]
    source: list[int] | None
    options: GenerationOptions
    seed: int
    notes: tuple[str, ...] = ()
    cut_note: str | None = None


class Generator:
    """A loaded model that continues prompts or, with an encoder, answers them."""

    def __init__(
        self,
        open_session: OpenSession,
        tokenizer: Tokenizer,
        *,
        context: int,
        vocab: int | None = None,
        end_tokens: frozenset[int] = frozenset(),
        start_token: int | None = None,
        answer_start: int | None = None,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """`defaults` is generation_config.json; `answer_start` is the id an encoder-decoder's answer begins with.

        `vocab` is how many logits the model has, where that is more than the tokenizer's entries.
        """
        self.open_session = open_session
        self.tokenizer = tokenizer
        self.context = context
        self.vocab = tokenizer.size() if vocab is None else vocab
        self.end_tokens = end_tokens
        self.start_token = start_token
        self.answer_start = answer_start
        self.defaults = defaults or {}

    def generate(self, prompt: str, **options: Any) -> str:
        """The continuation of a prompt as one string; options are the fields of `GenerationOptions`."""
        return "".join(event.text for event in self.stream(prompt, **options) if isinstance(event, Piece) and event.index == 0)

    def stream(self, prompt: str, *, cancelled: Callable[[], bool] = lambda: False, **options: Any) -> Iterator[Event]:
        """The continuation as events: Started, Pieces as their characters become whole, one Finished for each sample; Notes around them,
        and Reading before all of them where the prompt is long.

        Raises UsageError for options that cannot be meant, CapacityError for a prompt that does not fit the context.
        """
        yield from self.run(prompt, self.resolve(options), cancelled)

    def resolve(self, asked: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Resolved:
        """Options with every value settled, the folder's defaults included. Raises UsageError, CheckpointError."""
        return resolve(asked, environment or {}, self.defaults, answer=self.answer_start is not None)

    def run(
        self,
        prompt: str | Sequence[int],
        resolved: Resolved,
        cancelled: Callable[[], bool] = lambda: False,
        watch: Callable[[Trace], None] | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Event]:
        """The same for options that were settled elsewhere, and for a prompt that may be ids.

        `cancelled` is asked once a token; `watch` sees the first sample's draws; with a `memory` only what is new to it is read.
        """
        prepared = self.prepare(prompt, resolved)
        guard = self.guard(prepared)
        yield from (Note(text) for text in prepared.notes)
        known = memory.begin(prepared.ids) if memory is not None else 0
        started = Started(len(prepared.source or prepared.ids), prepared.options.max_new_tokens, prepared.seed, known)
        if prepared.options.num_beams > 1:
            events = _search(self, prepared, started, cancelled, memory)
        else:
            events = _continue(self, prepared, started, guard, cancelled, watch, memory)
        cut = False
        for event in events:
            cut = cut or (isinstance(event, Finished) and event.reason == "length")
            yield event
        if cut and prepared.cut_note is not None:
            yield Note(prepared.cut_note)

    def prepare(self, prompt: str | Sequence[int], resolved: Resolved) -> Prepared:
        """Ids and limits for a prompt, under the overflow policy. Raises CapacityError, UsageError."""
        options = resolved.options
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not all(0 <= token < self.vocab for token in ids):
            raise UsageError(f"the prompt holds ids that are not below the vocabulary's {self.vocab}")
        if not ids and self.start_token is not None:
            ids = [self.start_token]
        if not ids:
            raise UsageError("the prompt is empty and the model has no start token", "give a prompt")
        notes: list[str] = []
        source = None
        if self.answer_start is not None:
            source = self._source(ids, options)
            notes += self._dropped(ids, source)
            ids = [self.answer_start]
        seed = options.seed if options.seed is not None else secrets.randbits(32)
        wanted = len(ids) + options.max_new_tokens
        if wanted > self.context and options.overflow == "truncate-left":
            kept = self._truncate(ids, options.max_new_tokens)
            notes += self._dropped(ids, kept)
            ids = kept
        room = self.context - len(ids)
        if room < 1:
            raise CapacityError(
                f"the prompt has {len(ids)} tokens, the model's context is {self.context}",
                f"shorten it by {1 - room} tokens or more, or use --overflow truncate-left",
            )
        cut_note = None
        if options.max_new_tokens > room:
            if options.overflow != "shrink" and resolved.origins.get("max_new_tokens") in ("asked", "environment"):
                fits = f"prompt {len(ids)} + new {room} = context {self.context}"
                cut_note = f"--max-new-tokens {options.max_new_tokens} is more than fits: {fits}"
            options = replace(options, max_new_tokens=room)
        return Prepared(ids, source, options, seed, tuple(notes), cut_note)

    def rules(self, prepared: Prepared) -> Rules:
        """What the options and generation_config.json forbid or force."""
        counted = len(prepared.ids)
        ends = frozenset() if prepared.options.ignore_eos else self.end_tokens
        return read_rules(self.defaults, prepared.options, ends, self.vocab, prompt=counted)

    def guard(self, prepared: Prepared) -> Guard | None:
        """What keeps a sample to the constraint, if one is asked for. Raises UsageError for one that cannot be kept."""
        options = prepared.options
        return self._guards.guard(options.constraint, prepared.ids, options.max_new_tokens) if options.constraint else None

    def rows(
        self, prepared: Prepared, guard: Guard | None, watch: Callable[[Trace], None] | None = None
    ) -> tuple[list[Sampler], list[Row]]:
        """What draws each sample's tokens, and what turns them into text; `watch` sees the draws of the first."""
        options, rules = prepared.options, self.rules(prepared)
        numbers = range(options.samples)
        samplers = [
            Sampler(options, prepared.seed, number, prepared.ids, rules, None if number else watch, guard.copy() if guard else None)
            for number in numbers
        ]
        return samplers, [Row(number, self.tokenizer, prepared.ids, options, self.end_tokens) for number in numbers]

    @functools.cached_property
    def _guards(self) -> Guards:
        from tgen.constraint.guard import Guards
        from tgen.constraint.spelling import read_spelling

        return Guards(read_spelling(self.tokenizer, self.vocab), self.end_tokens)

    def _source(self, ids: list[int], options: GenerationOptions) -> list[int]:
        """A source text that fits the encoder."""
        if len(ids) <= self.context:
            return ids
        if options.overflow == "truncate-left":
            return ids[-self.context :]
        hint = f"shorten it by {len(ids) - self.context} tokens, or use --overflow truncate-left"
        raise CapacityError(f"the text has {len(ids)} tokens, the model's encoder reads {self.context}", hint)

    def _dropped(self, ids: list[int], kept: list[int]) -> list[str]:
        """What is to be said where ids were left out."""
        if len(kept) == len(ids):
            return []
        return [f"the prompt's first {len(ids) - len(kept)} of {len(ids)} tokens were left out to fit the context of {self.context}"]

    def _truncate(self, ids: list[int], new: int) -> list[int]:
        """Drop the prompt's oldest ids until `new` more fit, but keep a start token, and at least half the context for the prompt."""
        room = max(self.context - new, self.context // 2, 1)
        head = ids[:1] if ids[0] == self.start_token and room > 1 else []
        return head + ids[len(ids) - (room - len(head)) :] if len(ids) > room else ids


def _session(generator: Generator, prepared: Prepared) -> Session:
    """A new session with room for the prompt and what will follow."""
    room = len(prepared.ids) + prepared.options.max_new_tokens
    return generator.open_session(room, [prepared.source] if prepared.source else None)


def _continue(
    generator: Generator,
    prepared: Prepared,
    accepted: Started,
    guard: Guard | None,
    cancelled: Callable[[], bool],
    watch: Callable[[Trace], None] | None,
    memory: Memory | None,
) -> Iterator[Event]:
    """Read the prompt, run the loop and turn its columns into events."""
    options = prepared.options
    started = time.perf_counter()
    session = memory or _session(generator, prepared)
    samplers, rows = generator.rows(prepared, guard, watch)
    *early, last = chunks(prepared.ids, accepted.cached_tokens)
    for done, part in enumerate(early, start=1):
        session.extend([part])
        yield Reading(accepted.cached_tokens + done * CHUNK, len(prepared.ids))
        if cancelled():
            yield accepted
            yield from (Finished(row.index, "cancelled", 0, time.perf_counter() - started, 0.0) for row in rows)
            return
    yield accepted
    loop = Loop(session, [last], samplers, [0] * options.samples)
    prefill_seconds = time.perf_counter() - started
    while rows:
        for row, drawn in zip(rows, loop.column(), strict=True):
            if drawn.failure is not None:
                raise drawn.failure
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


def _search(
    generator: Generator, prepared: Prepared, accepted: Started, cancelled: Callable[[], bool], memory: Memory | None
) -> Iterator[Event]:
    """Beam search; its text comes at its end, for until then any beam may win."""
    yield accepted
    options = prepared.options
    started = time.perf_counter()
    session = memory or _session(generator, prepared)
    ends = frozenset() if options.ignore_eos else generator.end_tokens
    search = Search(read_beams(generator.defaults, options.num_beams), ends, options.max_new_tokens)
    prefill_seconds = time.perf_counter() - started
    beam_search(session, [prepared.ids], [search], adjustment(options, generator.rules(prepared)), cancelled)
    seconds = time.perf_counter() - started
    for index, ids in enumerate(search.best(options.samples)):
        row = Row(index, generator.tokenizer, prepared.ids, options, generator.end_tokens)
        for token in ids:
            if row.reason is None and (piece := row.take(token)) is not None:
                yield piece
        if row.reason is None and (rest := row.rest()) is not None:
            yield rest
        yield Finished(index, row.reason or "cancelled", row.count, prefill_seconds, seconds - prefill_seconds)
