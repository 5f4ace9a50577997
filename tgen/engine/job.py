"""A request while the scheduler runs it, and what the scheduler asks of the code that continues it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from tgen.arrays import Logits
from tgen.engine.draft import DraftPrompt
from tgen.engine.guess import Guesses
from tgen.engine.prefix import Prefix
from tgen.engine.request import Prepared
from tgen.engine.shared import SharedPrefixes
from tgen.events import Event, Finished, FinishReason, Note, Started, Token

# A step reads at most this many ids of one prompt: enough to keep the machine busy, few enough to report progress and to stop soon.
CHUNK = 256
# A step reads at most this many ids of a prompt whose tokens are scored: each needs logits for the whole vocabulary.
SCORED = 64

Score = Callable[[int, Logits], Token]


@dataclass(frozen=True, slots=True)
class Next:
    """One row of the next step: the number of the row that it continues, the token that it reads, and the guesses that it reads after it.

    `wrong` is how many of the last ids that the parent read were wrong guesses.
    """

    parent: int
    token: int
    guesses: Guesses | None = None
    wrong: int = 0

    @property
    def ids(self) -> list[int]:
        """What the row reads."""
        return [self.token, *(self.guesses.offered if self.guesses else ())]


class Writer(Protocol):
    """Continues one request, by beam search or by drawing samples side by side."""

    def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
        """Take logits [positions, vocab]; return events and the rows of the next step, none when the request ends.

        There is one position for the prompt, later one for each id that each row of the last result read. Raises TgenError if the request
        cannot continue.
        """
        ...

    def cancel(self, reason: FinishReason = "cancelled") -> list[Event]:
        """End now, for this reason; return the last events."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """A request in the scheduler. One row reads its prompt; then it has as many rows as its writer returns, at most `rows`."""

    key: int
    prepared: Prepared
    rows: int
    writer: Future[Writer]
    prefix: Prefix | SharedPrefixes | None = None
    draft: DraftPrompt | None = None
    score: Score | None = None  # scores a token of the prompt, if its tokens are to be scored
    scores: list[Token] = field(default_factory=list)
    accepted: float = field(default_factory=time.perf_counter)
    begun: float = 0.0  # when it got a row
    entered: float = 0.0  # when the prompt was read
    known: int = 0  # how many ids of the prompt its prefix had read
    done: int = 0  # how many ids of the prompt have been read
    next: list[Next] = field(default_factory=list)  # its rows, once the prompt has been read
    lengths: list[int] = field(default_factory=lambda: [0])  # how many ids each row has read
    read: list[int] = field(default_factory=list)  # the tokens and right guesses read after the prompt, if the job has a single row
    bytes: int = 0  # the most bytes of cache that its rows may need
    left: int = 0  # how many samples have not ended
    cut: bool = False  # whether the length limit ended a sample

    @property
    def reading(self) -> bool:
        """Whether a part of the prompt is unread."""
        return self.done < len(self.prepared.ids)

    @property
    def unread(self) -> int:
        """How many ids of the prompt have not been read."""
        return len(self.prepared.ids) - self.done

    @property
    def most(self) -> int:
        """How many unread ids of the prompt a step may read."""
        return min(self.unread, CHUNK if self.score is None else SCORED)

    @property
    def price(self) -> int:
        """As how many ids one id of this prompt counts for a step: more than one if each needs logits, which take memory."""
        return 1 if self.score is None else CHUNK // SCORED

    @property
    def overdue(self) -> bool:
        """Whether the job has had a row for longer than its `max_time`."""
        limit = self.prepared.options.max_time
        return limit is not None and time.perf_counter() - self.begun > limit

    @property
    def width(self) -> int:
        """How many rows of the session the job has now."""
        return len(self.lengths)

    def block(self, most: int) -> list[Sequence[int]]:
        """The ids that its rows read in the next step: a token and its guesses, or `most` ids of the prompt."""
        if not self.reading:
            return [row.ids for row in self.next]
        return [self.prepared.ids[self.done : self.done + most]]

    def tails(self, block: Sequence[Sequence[int]]) -> list[int]:
        """For each row in a block, at how many of its last positions the job needs logits: none before the end of an unscored prompt."""
        if not self.reading or self.score is not None:
            return [len(row) for row in block]
        return [int(self.done + len(block[0]) == len(self.prepared.ids))]

    def read_prompt(self, block: Sequence[int], logits: Logits) -> None:
        """Note that a part of the prompt was read. Raises TgenError where the logits give no score."""
        if self.score is not None:
            following = self.prepared.ids[self.done + 1 : self.done + 1 + len(block)]
            self.scores += map(self.score, following, logits[: len(following)])
        self.done += len(block)
        if self.draft is not None:
            self.draft.read(self.done)

    @property
    def read_ids(self) -> list[int]:
        """The first ids that its first row has read; the row may have read more."""
        return [*self.prepared.ids[: self.done], *self.read]

    def remember_read(self) -> None:
        """Note what a single row has just read after the prompt, without guesses that turned out wrong."""
        for row in self.next if self.rows == 1 else []:
            self.read += row.ids if row.guesses is None else [row.token, *row.guesses.confirmed]

    def go_on(self, rows: Sequence[Next]) -> list[int]:
        """Continue with these rows; returns the numbers of their parents."""
        parents = [row.parent for row in rows]
        self.lengths = [self.lengths[row.parent] - row.wrong for row in rows]
        self.next = list(rows)
        return parents

    def started(self) -> Started:
        """The Started event of this request."""
        prepared = self.prepared
        return Started(len(prepared.source or prepared.ids), prepared.options.max_new_tokens, prepared.seed, self.known, tuple(self.scores))

    def told(self, events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
        """A writer's events with the request's key and times; a note comes before the last event if the context cut the text."""
        now = time.perf_counter()
        for event in events:
            if isinstance(event, Finished):
                self.left -= 1
                self.cut = self.cut or event.reason == "length"
                if not self.left and self.cut and self.prepared.cut_note is not None:
                    yield self.key, Note(self.prepared.cut_note)
                entered = self.entered or now
                yield self.key, replace(event, prefill_seconds=entered - self.accepted, decode_seconds=now - entered)
            else:
                yield self.key, event
