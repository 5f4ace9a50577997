"""Continuous batching: every request gets the events it would get alone, whatever other requests share the batch."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.engine.scripted import (
    END,
    VOCAB,
    Played,
    Script,
    ScriptedExecutor,
    ScriptedSession,
    Stage,
    byte_tokenizer,
    only,
    speak,
)
from tests.executors.test_session import model
from tgen.arrays import Logits
from tgen.checkpoint.container import open_checkpoint
from tgen.engine.generator import Generator
from tgen.engine.job import CHUNK, Job
from tgen.engine.opening import open_generator
from tgen.engine.pace import USUAL
from tgen.engine.request import Request
from tgen.engine.scheduler import Scheduler
from tgen.errors import CapacityError, MemoryLimitError, TgenError, UsageError
from tgen.events import Finished, Note, Piece, Started
from tgen.executors.session import Interrupt
from tgen.executors.torch.session import TorchExecutor
from tgen.options import RunOptions

Options = dict[str, Any]


def requests(generator: Generator, wanted: Sequence[tuple[str, Options]]) -> list[Request]:
    return [Request(key, prompt, generator.resolve(options)) for key, (prompt, options) in enumerate(wanted)]


def taking(todo: list[Request], ready: Callable[[], bool] = lambda: True) -> Callable[[bool], Request | None]:
    """Hands out requests; while none is ready, the batch has to ask again."""
    return lambda wait: todo.pop(0) if todo and (wait or ready()) else None


def run(
    generator: Generator, wanted: Sequence[tuple[str, Options]], size: int, ready: Callable[[], bool] = lambda: True
) -> dict[int, Played]:
    found: dict[int, list[Any]] = defaultdict(list)
    for key, event in generator.run_many(taking(requests(generator, wanted), ready), size):
        found[key].append(event)
    return {key: Played(events) for key, events in found.items()}


def random_model() -> Generator:
    return Generator(TorchExecutor(model("llama")), byte_tokenizer(), context=128, end_tokens=frozenset({END}))


def wishes(count: int) -> list[tuple[str, Options]]:
    """Requests of many kinds."""
    choose = np.random.default_rng(5)
    kinds: list[Options] = [
        {},
        {"temperature": 0},
        {"samples": 3},
        {"repetition_penalty": 1.5, "top_p": 0.5},
        {"stop": ("e", "zz")},
        {"min_p": 0.2, "top_k": 0},
        {"choices": ["yes", "no, never"], "max_new_tokens": 12},
        {"logprobs": 2},
        {"num_beams": 2},
    ]
    return [
        (
            "x" * int(choose.integers(1, 60)),
            {"seed": key, "max_new_tokens": int(choose.integers(1, 40)), **kinds[int(choose.integers(len(kinds)))]},
        )
        for key in range(count)
    ]


@functools.cache
def alone() -> list[Played]:
    return [Played(list(random_model().stream(prompt, **options))) for prompt, options in wishes(40)]


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_every_request_has_the_text_it_has_alone(size: int) -> None:
    generator, wanted = random_model(), wishes(40)
    choose = np.random.default_rng(size)
    found = run(generator, wanted, size, lambda: choose.random() < 0.6)
    assert sorted(found) == list(range(len(wanted)))
    for key, (prompt, options) in enumerate(wanted):
        single, together = alone()[key], found[key]
        assert together.started == single.started
        samples = options.get("samples", 1)
        assert [together.text(row) for row in range(samples)] == [single.text(row) for row in range(samples)], (prompt, options)
        assert [together.finished[row].reason for row in range(samples)] == [single.finished[row].reason for row in range(samples)]
        assert [together.finished[row].token_count for row in range(samples)] == [
            single.finished[row].token_count for row in range(samples)
        ]
        assert [token.score.id for token in together.tokens()] == [token.score.id for token in single.tokens()]


@pytest.mark.parametrize("name", ["marian", "t5_flan", "bart"])
def test_answers_of_an_encoder_decoder(name: str) -> None:
    """Rows with sources of unlike lengths join a running batch."""
    generator = open_generator(open_checkpoint(GOLDEN / name), RunOptions(threads=1))
    choose = np.random.default_rng(1)
    wanted: list[tuple[str, Options]] = [
        ("a " * int(choose.integers(1, 12)), {"max_new_tokens": int(choose.integers(1, 9)), "num_beams": 1, "ignore_eos": True})
        for _ in range(14)
    ]
    found = run(generator, wanted, 4)
    assert [found[key].text() for key in range(14)] == [generator.generate(prompt, **options) for prompt, options in wanted]


def test_the_last_event_of_a_request_is_its_last_finished() -> None:
    generator, wanted = random_model(), [*wishes(20), ("x" * 100, {"max_new_tokens": 100, "temperature": 0})]
    for key, played in run(generator, wanted, 4).items():
        assert isinstance(list(played)[-1], Finished), key
        assert len(played.finished) == wanted[key][1].get("samples", 1)


def test_rows_never_wait_for_one_another() -> None:
    """While one long row runs, others enter and leave beside it, and every step has as many rows as there are requests for them."""
    script = speak("a" * 30)
    stage = Stage(lambda read: only(END) if read[0] == ord("Q") and len(read) > 3 else script(read))
    wanted: list[tuple[str, Options]] = [("P", {}), *[("Q", {})] * 12]
    found = run(stage.generator, wanted, 3)
    assert [found[key].text() for key in range(13)] == ["a" * 30, *["aaa"] * 12]
    # Twelve short ones, four steps each, in the two places beside the long one; the first step of each reads its prompt.
    assert [len(rows) for rows in stage.sessions[0].read] == [3] * 24 + [1] * 7


def test_prompts_that_wait_are_read_together() -> None:
    stage = Stage(speak("abc", after="P"))
    run(stage.generator, [("P" * length, {"max_new_tokens": 3}) for length in (1, 2, 3, 200, 210, 50)], 6)
    assert [len(row) for row in stage.sessions[0].read[0]] == [1, 2, 3, 200, 210, 50]


def test_samples_share_one_prefill() -> None:
    stage = Stage(speak("abc"))
    found = run(stage.generator, [("P", {"samples": 5})], 8)
    assert [found[0].text(row) for row in range(5)] == ["abc"] * 5
    assert [len(rows) for rows in stage.sessions[0].read] == [1, 5, 5, 5]


def job_of(generator: Generator, key: int, prompt: str, **options: Any) -> Job:
    return generator.job(Request(key, prompt, generator.resolve({"temperature": 0, "ignore_eos": True, **options})))


def test_a_long_prompt_is_read_beside_a_row_that_writes() -> None:
    """The row that writes gets a token in every step, and no step reads many ids of the other's prompt."""
    stage = Stage(lambda _: only(ord("a")), context=2000)
    generator = stage.generator
    scheduler = Scheduler(generator.executor, 4)
    scheduler.add(job_of(generator, 1, "P", max_new_tokens=1000))
    scheduler.step()
    scheduler.add(job_of(generator, 2, "Q" * 1000, max_new_tokens=3))
    told: list[int] = []
    started = False
    while not started:
        events = scheduler.step()
        told += [key for key, event in events if isinstance(event, Piece)]
        started = any(isinstance(event, Started) for key, event in events if key == 2)
    blocks = stage.sessions[0].read[1:]
    assert told == [*[1] * len(blocks), 2]
    assert all(len(rows[0]) == 1 and len(rows[1]) <= USUAL + 2 for rows in blocks)
    assert sum(len(rows[1]) for rows in blocks) == 1000


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    """Beside a row that writes, the prompt with the fewest unread ids is read first, whenever it came."""
    stage = Stage(lambda _: only(ord("a")), context=2000)
    generator = stage.generator
    scheduler = Scheduler(generator.executor, 4)
    scheduler.add(job_of(generator, 1, "P", max_new_tokens=1000))
    scheduler.step()
    for key, length in ((2, 1000), (3, 1100), (4, 8)):
        scheduler.add(job_of(generator, key, "Q" * length, max_new_tokens=3))
    events = scheduler.step()
    assert scheduler.running == [1, 2, 4], "a share of what a step reads is left for this one alone"
    events += scheduler.step()
    assert [key for key, event in events if isinstance(event, Started)] == [4]


class Restless(ScriptedSession):
    """A session in which others raise the interrupt while it reads, the first `times` that it may be interrupted."""

    times = 0
    rooms: ClassVar[list[tuple[int, int]]] = []

    def extend_unless(self, interrupt: Interrupt, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits | None:
        assert interrupt is not None
        if type(self).times:
            type(self).times -= 1
            self.calls.append(("interrupted", [list(row) for row in rows]))
            return None
        return self.extend(rows, tails)

    def make_room(self, interrupt: Interrupt, row: int, count: int) -> None:
        assert not interrupt.raised
        self.rooms.append((row, count))


class RestlessExecutor(ScriptedExecutor):
    def open(self) -> ScriptedSession:
        self.sessions.append(Restless(self.script, self.context))
        return self.sessions[-1]


def test_a_request_that_comes_while_a_long_prompt_is_read_interrupts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text stays the same, and the step after an interrupted one is not interrupted, so that there is progress."""
    monkeypatch.setattr(Restless, "times", 10)
    monkeypatch.setattr(Restless, "rooms", [])
    executor = RestlessExecutor(lambda read: only(ord("a") + len(read) % 26), 2000)
    generator = Generator(executor, byte_tokenizer(), context=2000)
    scheduler = Scheduler(executor, 4, interrupt=Interrupt())
    scheduler.add(job_of(generator, 1, "P" * 1000, max_new_tokens=5))
    assert scheduler.step() == []
    scheduler.add(job_of(generator, 2, "Q" * 8, max_new_tokens=3))
    found: dict[int, list[Any]] = defaultdict(list)
    for number in range(100):
        for key, event in scheduler.step():
            found[key].append(event)
        if number == 0:
            assert any(isinstance(event, Started) for event in found[2]), "the short prompt is read at once"
            assert not any(isinstance(event, Started) for event in found[1])
    assert scheduler.idle
    session = executor.sessions[0]
    [first, second, *_] = session.read
    assert (len(first[1]), len(first[0])) == (8, 1), "the long prompt does not hold it up"
    assert len(second[0]) <= 2 * (USUAL + 2), "beside a row that writes"
    kinds = [call for call, _ in session.calls if call in ("extend", "interrupted")]
    assert "interrupted" in kinds[2:], "later ones are interrupted, too"
    assert Restless.rooms == [(0, 1000), (1, 8)]
    assert ("interrupted", "interrupted") not in pairwise(kinds)
    for key, prompt, count in ((1, "P" * 1000, 5), (2, "Q" * 8, 3)):
        assert Played(found[key]).text() == Stage(executor.script, context=2000).generator.generate(
            prompt, temperature=0, ignore_eos=True, max_new_tokens=count
        )


def test_one_request_is_cancelled_and_the_others_do_not_notice() -> None:
    stage = Stage(lambda read: only(ord("a") + len(read) % 26), context=2000)
    generator = stage.generator
    scheduler = Scheduler(generator.executor, 5)
    jobs = {1: {"samples": 2}, 2: {"num_beams": 2}, 3: {}, 4: {}, 5: {}}  # the last two have to wait
    for key, options in jobs.items():
        scheduler.add(job_of(generator, key, "P" * key, max_new_tokens=40, **options))
    found: dict[int, list[Any]] = defaultdict(list)
    for step in range(100):
        events = scheduler.step()
        events += scheduler.cancel(2) if step == 9 else scheduler.cancel(5) if step == 11 else scheduler.cancel(1) if step == 20 else []
        for key, event in events:
            found[key].append(event)
    assert scheduler.idle
    reasons = {key: [finished.reason for finished in Played(events).finished.values()] for key, events in found.items()}
    assert reasons == {1: ["cancelled"] * 2, 2: ["cancelled"], 3: ["length"], 4: ["length"], 5: ["cancelled"]}
    for key in (3, 4):
        assert Played(found[key]).text() == generator.generate("P" * key, temperature=0, max_new_tokens=40)
    assert len(Played(found[2]).text()) == 10
    assert Played(found[1]).text(1) == Played(found[1]).text(0) == generator.generate("P", temperature=0, max_new_tokens=21)


def test_requests_wait_until_their_cache_fits() -> None:
    """With 350 free bytes, of which caches may take 80 %, two requests that may need 100 bytes each run at a time."""
    stage = Stage(lambda _: only(ord("a")))
    executor = ScriptedExecutor(stage.script, stage.context, free=350)
    generator = Generator(executor, byte_tokenizer(), context=1000)
    wanted = [("P" * 10, {"temperature": 0, "max_new_tokens": 90})] * 5
    found = run(generator, wanted, 16)
    assert {len(played.text()) for played in found.values()} == {90}
    assert max(len(rows) for rows in executor.sessions[0].read) == 2
    (alone,) = run(generator, [("P" * 10, {"temperature": 0, "max_new_tokens": 900})], 16).values()
    assert len(alone.text()) == 900, "a request that is alone is not held back"


def test_out_of_memory_ends_one_request() -> None:
    """The newest request ends; the texts of the others stay the same."""

    class Small(ScriptedSession):
        def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
            if sum(map(len, self.rows)) + sum(map(len, rows)) > 100:
                raise MemoryLimitError("out of memory while reading", "use a smaller model")
            return super().extend(rows, tails)

    class SmallExecutor(ScriptedExecutor):
        def open(self) -> ScriptedSession:
            self.sessions.append(Small(self.script, self.context))
            return self.sessions[-1]

    script: Script = lambda read: only(ord("a") + len(read) % 26)  # noqa: E731
    generator = Generator(SmallExecutor(script, 1000), byte_tokenizer(), context=1000)
    wanted = [("P" * 10, {"temperature": 0, "max_new_tokens": 30})] * 2 + [("P" * 50, {"temperature": 0, "max_new_tokens": 30})]
    found = run(generator, wanted, 16)
    assert [type(error) for error in errors(found[2])] == [MemoryLimitError]
    for key in (0, 1):
        assert found[key].text() == Generator(ScriptedExecutor(script), byte_tokenizer(), context=1000).generate("P" * 10, **wanted[0][1])
    (alone,) = run(generator, [("P" * 101, {})], 16).values()
    assert [type(error) for error in errors(alone)] == [MemoryLimitError]


def test_a_constraint_is_compiled_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row goes on writing while the constraint of another request is compiled."""
    stage = Stage(lambda _: only(ord("a")))
    generator = stage.generator
    compiled = threading.Event()
    make = generator._writer

    def slowly(*arguments: Any) -> Any:
        assert compiled.wait(60)
        return make(*arguments)

    scheduler = Scheduler(generator.executor, 4)
    scheduler.add(job_of(generator, 1, "P", max_new_tokens=50))
    monkeypatch.setattr(generator, "_writer", slowly)
    scheduler.add(job_of(generator, 2, "Q", ignore_eos=False, choices=["aa"], max_new_tokens=5))
    found: dict[int, list[Any]] = defaultdict(list)
    for _ in range(20):
        for key, event in scheduler.step():
            found[key].append(event)
    assert len(Played(found[1]).text()) == 20
    assert 2 not in found
    compiled.set()
    while not scheduler.idle:
        for key, event in scheduler.step():
            found[key].append(event)
    assert Played(found[2]).text() == "aa"


def test_more_samples_than_rows() -> None:
    found = run(Stage(speak("abc")).generator, [("P", {"samples": 7}), ("P", {})], 3)
    assert [found[0].text(row) for row in range(7)] == ["abc"] * 7
    assert found[1].text() == "abc"


def test_requests_of_one_token_do_not_end_the_run() -> None:
    found = run(Stage(speak("abc")).generator, [("P", {"max_new_tokens": 1})] * 9, 2)
    assert [played.text() for played in found.values()] == ["a"] * 9


def errors(events: Iterable[object]) -> list[TgenError]:
    return [event for event in events if isinstance(event, TgenError)]


def test_a_request_that_fails_ends_with_its_error_and_the_others_go_on() -> None:
    def script(read: tuple[int, ...]) -> Sequence[float] | np.ndarray:
        broken = read[0] == ord("N") and len(read) > 2
        return np.full(VOCAB, np.nan) if broken else speak("abc")(read)

    stage = Stage(script, context=20)
    wanted: list[tuple[str, Options]] = [
        ("P", {}),
        ("P" * 21, {}),
        ("N", {"samples": 3}),
        ("P", {}),
        ("P", {"choices": ["x" * 40]}),
        ("P", {}),
    ]
    found = run(stage.generator, wanted, 2)
    assert [found[key].text() for key in (0, 3, 5)] == ["abc"] * 3
    (too_long,), (broken,), (closed,) = (errors(found[key]) for key in (1, 2, 4))
    assert isinstance(too_long, CapacityError)
    assert "not finite" in broken.message
    assert isinstance(closed, UsageError)
    assert not any(found[key].finished for key in (1, 2, 4))


def test_nothing_comes_after_an_error() -> None:
    """One of several samples fails; the others leave with it."""

    def script(read: tuple[int, ...]) -> np.ndarray:
        if read[-1] == ord("b"):
            return np.full(VOCAB, np.nan)
        return np.where(np.isin(np.arange(VOCAB), [ord("a"), ord("b")]) if len(read) == 3 else np.arange(VOCAB) == ord("a"), 30.0, 0.0)

    generator = Stage(script).generator
    wanted: list[tuple[str, Options]] = [("P", {"samples": 6, "seed": 1, "max_new_tokens": 30}), ("P" * 5, {"max_new_tokens": 9})]
    events = list(generator.run_many(taking(requests(generator, wanted)), 7))
    mine = [event for key, event in events if key == 0]
    assert isinstance(mine[-1], TgenError)
    assert len(errors(mine)) == 1
    assert len({event.index for event in mine if isinstance(event, Piece)}) > 1
    assert isinstance(events[-1][1], Finished)


def test_notes_come_before_the_end() -> None:
    found = run(
        Stage(speak("a" * 50), context=10).generator,
        [("P", {"max_new_tokens": 30, "samples": 3}), ("PP" * 10, {"overflow": "truncate-left"})],
        2,
    )
    for key in (0, 1):
        events = list(found[key])
        assert len([event for event in events if isinstance(event, Note)]) == 1
        assert isinstance(events[-1], Finished)


def test_cancelled() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    generator = Stage(lambda _: only(ord("a"))).generator
    todo = requests(generator, [("P", {"max_new_tokens": 900})] * 50)
    events = list(generator.run_many(taking(todo), 4, cancelled))
    assert not any(isinstance(event, Finished) for _, event in events)
    assert 0 < sum(isinstance(event, Piece) for _, event in events) < 100
    assert len(todo) == 46


def test_reading_a_long_prompt_can_be_cancelled() -> None:
    stage = Stage(speak("abc"), context=5000)
    take = taking(requests(stage.generator, [("P" * 2000, {})]))
    events = list(stage.generator.run_many(take, 2, lambda: bool(stage.sessions) and len(stage.sessions[0].read) == 2))
    assert not any(isinstance(event, Piece) for _, event in events)
    assert [len(rows[0]) for rows in stage.sessions[0].read] == [CHUNK, CHUNK]


def test_it_waits_only_while_nothing_is_to_be_done() -> None:
    waits: list[bool] = []
    generator = Stage(speak("abc")).generator
    todo = requests(generator, [("P", {}), ("P", {})])

    def take(wait: bool) -> Request | None:
        waits.append(wait)
        return todo.pop(0) if wait and todo else None

    assert len([1 for _, event in generator.run_many(take, 4) if isinstance(event, Finished)]) == 2
    assert [wait for wait in waits if wait] == [True] * 3
    assert waits[0] and waits[-1]
