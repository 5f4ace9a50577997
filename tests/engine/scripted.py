"""What stands in for a model and its tokenizer: a session that follows a script, and ids that are bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, processors

from tgen.checkpoint.generation import parse_generation
from tgen.engine.generator import Generator
from tgen.events import Event, Finished, Note, Piece, Started, Token
from tgen.executors.session import Logits
from tgen.text.tokenizer import Tokenizer

END, START, VOCAB = 256, 257, 258
Script = Callable[[tuple[int, ...]], Sequence[float] | np.ndarray]


class ScriptedSession:
    """Logits are a function of the ids a row has read so far. Records every call and refuses what the engine must never do."""

    def __init__(self, script: Script, capacity: int | None = None) -> None:
        self.script = script
        self.capacity = capacity
        self.rows: list[tuple[int, ...]] | None = None
        self.calls: list[tuple[str, list[Any]]] = []

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        self.calls.append(("extend", [list(row) for row in rows]))
        before = [()] * len(rows) if self.rows is None else self.rows
        assert len(rows) == len(before) > 0, "as many rows as there are"
        assert all(len(row) > 0 for row in rows), "at least one id for each"
        self.rows = [(*old, *new) for old, new in zip(before, rows, strict=True)]
        assert self.capacity is None or max(map(len, self.rows)) <= self.capacity, "no more ids than announced"
        logits = np.array([self.script(row) for row in self.rows], dtype=np.float32)
        assert all(0 <= token < logits.shape[1] for row in rows for token in row)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        self.calls.append(("select", list(rows)))
        assert self.rows is not None, "something was read"
        assert len(rows) > 0, "a session without rows is of no use"
        assert all(0 <= row < len(self.rows) for row in rows)
        self.rows = [self.rows[row] for row in rows]

    def admit(self, other: ScriptedSession, rows: Sequence[int], places: Sequence[int]) -> None:
        self.calls.append(("admit", list(places)))
        assert self.rows is not None and other.rows is not None, "both have read something"
        assert len(rows) == len(places) == len(set(places)) > 0
        for row, place in zip(rows, places, strict=True):
            assert place <= len(self.rows), "no row is left out"
            self.rows = [*self.rows[:place], other.rows[row], *self.rows[place + 1 :]]
        self.capacity = None  # it was announced for the rows that were there first

    def truncate(self, lengths: Sequence[int]) -> None:
        raise AssertionError(f"plain generation never goes back, least of all to {lengths}")


def byte_library(*, starts: bool = False) -> Library:
    """Every byte is the id of its number; END and START are special. With `starts`, a START is put before every text."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    spelled = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
    library = Library(models.BPE(vocab=spelled, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<end>", "<start>"])
    if starts:
        library.post_processor = processors.TemplateProcessing(single="<start> $A", special_tokens=[("<start>", START)])
    return library


def byte_tokenizer(*, starts: bool = False) -> Tokenizer:
    return Tokenizer(byte_library(starts=starts))


def only(token: int, vocab: int = VOCAB) -> np.ndarray:
    """Logits under which one token is all but certain."""
    logits = np.zeros(vocab)
    logits[token] = 60
    return logits


def always(token: int) -> Script:
    """The script of a model that knows one word."""
    return lambda _: only(token)


def speak(text: str | bytes, after: str = "P") -> Script:
    """The script of a model that continues a prompt with this text, and then ends."""
    ids = [*(text.encode() if isinstance(text, str) else text), END]
    prompt = len(after.encode())
    return lambda read: only(ids[min(max(len(read) - prompt, 0), len(ids) - 1)])


@dataclass
class Stage:
    """A generator on a script, and the sessions it has opened."""

    script: Script
    context: int = 1000
    start_token: int | None = None
    starts: bool = False
    end_tokens: Iterable[int] = (END,)
    defaults: dict[str, Any] = field(default_factory=dict)
    sessions: list[ScriptedSession] = field(default_factory=list)

    @property
    def generator(self) -> Generator:
        return Generator(
            self._open,
            byte_tokenizer(starts=self.starts),
            context=self.context,
            end_tokens=frozenset(self.end_tokens),
            start_token=self.start_token,
            defaults=parse_generation(self.defaults, VOCAB),
        )

    def play(self, prompt: str = "P", **options: Any) -> Played:
        return Played(list(self.generator.stream(prompt, **options)))

    def _open(self, length: int, sources: Sequence[Sequence[int]] | None) -> ScriptedSession:
        assert length <= self.context
        assert sources is None
        self.sessions.append(ScriptedSession(self.script, length))
        return self.sessions[-1]


@dataclass
class Played:
    """The events of one generation, sorted."""

    events: list[Event]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @property
    def started(self) -> Started:
        (started,) = (event for event in self.events if isinstance(event, Started))
        return started

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def finished(self) -> dict[int, Finished]:
        return {event.index: event for event in self.events if isinstance(event, Finished)}

    def pieces(self, index: int = 0) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Piece) and event.index == index]

    def text(self, index: int = 0) -> str:
        return "".join(self.pieces(index))

    def tokens(self, index: int = 0) -> list[Token]:
        return [token for event in self.events if isinstance(event, Piece) and event.index == index for token in event.tokens]
