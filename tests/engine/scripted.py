"""Stand-ins for a model and its tokenizer: a session that follows a script, and a tokenizer whose ids are bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, processors

from tgen.arrays import Logits
from tgen.checkpoint.generation import parse_generation
from tgen.engine.generator import Generator
from tgen.engine.job import Job, Next, Writer
from tgen.engine.request import Prepared
from tgen.engine.scheduler import Scheduler
from tgen.events import Event, Finished, FinishReason, Note, Piece, Started, Token
from tgen.executors.session import Executor
from tgen.options import GenerationOptions
from tgen.sampling.sampler import Sampler
from tgen.text.tokenizer import Tokenizer

END, START, VOCAB = 256, 257, 258
Script = Callable[[tuple[int, ...]], Sequence[float] | np.ndarray]


class ScriptedSession:
    """Logits are a function of the ids a row has read so far. Records every call, and fails if the engine breaks the protocol."""

    def __init__(self, script: Script, context: int | None = None) -> None:
        self.script = script
        self.context = context
        self.rows: list[tuple[int, ...]] = []
        self.calls: list[tuple[str, list[Any]]] = []

    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        self.calls.append(("admit", list(sources)))
        assert not any(sources), "these models have no encoder"
        self.rows += [()] * len(sources)

    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
        self.calls.append(("extend", [list(row) for row in rows]))
        assert len(rows) == len(self.rows) > 0, "as many rows as there are"
        assert all(len(row) > 0 for row in rows), "at least one id for each"
        read = [(*old, *new) for old, new in zip(self.rows, rows, strict=True)]
        assert self.context is None or max(map(len, read)) <= self.context, "no more ids than the context has"
        tails = [1] * len(rows) if tails is None else tails
        assert all(0 <= tail <= len(row) for tail, row in zip(tails, rows, strict=True)), "no tail is longer than what is read"
        seen = [row[: len(row) - back] for row, tail in zip(read, tails, strict=True) for back in reversed(range(tail))]
        logits = np.array([self.script(row) for row in seen], dtype=np.float32)
        self.rows = read
        assert not seen or all(0 <= token < logits.shape[1] for row in rows for token in row)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        self.calls.append(("select", list(rows)))
        assert all(0 <= row < len(self.rows) for row in rows)
        self.rows = [self.rows[row] for row in rows]

    def truncate(self, lengths: Sequence[int]) -> None:
        self.calls.append(("truncate", list(lengths)))
        assert len(lengths) == len(self.rows)
        self.rows = [row[:length] for row, length in zip(self.rows, lengths, strict=True)]

    def split(self, row: int) -> ScriptedSession:
        other = ScriptedSession(self.script, self.context)
        other.rows = [self.rows[row]]
        return other

    def join(self, other: ScriptedSession) -> None:
        self.calls.append(("join", list(other.rows)))
        self.rows, other.rows = self.rows + other.rows, []

    @property
    def read(self) -> list[list[Any]]:
        """The ids of each pass, row by row."""
        return [rows for call, rows in self.calls if call == "extend"]


@dataclass
class ScriptedExecutor:
    """Opens sessions on a script, and keeps them."""

    script: Script
    context: int | None = None
    bytes_per_token: int = 1
    free: int | None = None
    exact: bool = False
    sessions: list[ScriptedSession] = field(default_factory=list)

    def open(self) -> ScriptedSession:
        self.sessions.append(ScriptedSession(self.script, self.context))
        return self.sessions[-1]

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:
        return (tokens + source_tokens) * self.bytes_per_token

    def free_bytes(self) -> int | None:
        return self.free


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
    """Logits that make one token almost certain."""
    logits = np.zeros(vocab)
    logits[token] = 60
    return logits


def always(token: int) -> Script:
    """The script of a model that always gives one token."""
    return lambda _: only(token)


def speak(text: str | bytes, after: str = "P") -> Script:
    """The script of a model that continues a prompt with this text, and then ends."""
    ids = [*(text.encode() if isinstance(text, str) else text), END]
    prompt = len(after.encode())
    return lambda read: only(ids[min(max(len(read) - prompt, 0), len(ids) - 1)])


def columns(
    executor: Executor, prompt: Sequence[int], samplers: Sequence[Sampler], count: int, source: Sequence[int] | None = None
) -> list[list[int]]:
    """A number of tokens of each of these samplers, drawn side by side by the scheduler; token by token, those of all rows."""

    drawn: list[list[int]] = []

    class Draws:
        def take(self, logits: Logits) -> tuple[list[Event], list[Next]]:
            rows = [0 if len(logits) == 1 else row for row in range(len(samplers))]
            drawn.append([sampler.draw(logits[row]) for sampler, row in zip(samplers, rows, strict=True)])
            over = len(drawn) == count
            return [], [] if over else [Next(row, token) for row, token in zip(rows, drawn[-1], strict=True)]

        def cancel(self, reason: FinishReason = "cancelled") -> list[Event]:  # noqa: ARG002
            return []

    writer: Future[Writer] = Future()
    writer.set_result(Draws())
    scheduler = Scheduler(executor, len(samplers))
    prepared = Prepared(list(prompt), None if source is None else list(source), GenerationOptions(max_new_tokens=count), 0)
    scheduler.add(Job(0, prepared, len(samplers), writer))
    while not scheduler.idle:
        scheduler.step()
    return drawn


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
    def executor(self) -> ScriptedExecutor:
        return ScriptedExecutor(self.script, self.context, sessions=self.sessions)

    @property
    def generator(self) -> Generator:
        return Generator(
            self.executor,
            byte_tokenizer(starts=self.starts),
            context=self.context,
            end_tokens=frozenset(self.end_tokens),
            start_token=self.start_token,
            defaults=parse_generation(self.defaults, VOCAB),
        )

    def play(self, prompt: str = "P", **options: Any) -> Played:
        return Played(list(self.generator.stream(prompt, **options)))


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
