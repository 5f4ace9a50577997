"""Continuous batching: every request has the events it would have alone, whatever shares the batch with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.engine.scripted import END, VOCAB, Played, Stage, only, speak
from tests.executors.test_session import model
from tgen.checkpoint.container import open_checkpoint
from tgen.engine.generator import Generator
from tgen.engine.loop import CHUNK
from tgen.engine.opening import open_generator
from tgen.engine.scheduler import Batch, Request
from tgen.errors import CapacityError, TgenError, UsageError
from tgen.events import Finished, Note, Piece
from tgen.executors.open import sessions
from tgen.options import RunOptions

Options = dict[str, Any]


def requests(generator: Generator, wanted: Sequence[tuple[str, Options]]) -> list[Request]:
    return [Request(key, prompt, generator.resolve(options)) for key, (prompt, options) in enumerate(wanted)]


def taking(todo: list[Request], ready: Callable[[], bool] = lambda: True) -> Callable[[bool], Request | None]:
    """Hands out requests; where none is ready, the batch has to come back for it."""
    return lambda wait: todo.pop(0) if todo and (wait or ready()) else None


def run(
    generator: Generator, wanted: Sequence[tuple[str, Options]], size: int, ready: Callable[[], bool] = lambda: True
) -> dict[int, Played]:
    found: dict[int, list[Any]] = defaultdict(list)
    for key, event in Batch(generator, size).run(taking(requests(generator, wanted), ready)):
        found[key].append(event)
    return {key: Played(events) for key, events in found.items()}


def random_model() -> Generator:
    from tests.engine.scripted import byte_tokenizer

    return Generator(sessions(model("llama")), byte_tokenizer(), context=128, end_tokens=frozenset({END}))


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


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_every_request_has_the_text_it_has_alone(size: int) -> None:
    generator, wanted = random_model(), wishes(40)
    choose = np.random.default_rng(size)
    found = run(generator, wanted, size, lambda: choose.random() < 0.6)
    assert sorted(found) == list(range(len(wanted)))
    for key, (prompt, options) in enumerate(wanted):
        alone = Played(list(generator.stream(prompt, **options)))
        together = found[key]
        assert together.started == alone.started
        samples = options.get("samples", 1)
        assert [together.text(row) for row in range(samples)] == [alone.text(row) for row in range(samples)], (prompt, options)
        assert [together.finished[row].reason for row in range(samples)] == [alone.finished[row].reason for row in range(samples)]
        assert [together.finished[row].token_count for row in range(samples)] == [alone.finished[row].token_count for row in range(samples)]
        assert [token.score.id for token in together.tokens()] == [token.score.id for token in alone.tokens()]


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
    """While one row is long, others enter and leave beside it, and no step has fewer rows than there are requests for it."""
    script = speak("a" * 30)
    stage = Stage(lambda read: only(END) if read[0] == ord("Q") and len(read) > 3 else script(read))
    wanted: list[tuple[str, Options]] = [("P", {}), *[("Q", {})] * 12]
    found = run(stage.generator, wanted, 3)
    assert [found[key].text() for key in range(13)] == ["a" * 30, *["aaa"] * 12]
    main = stage.sessions[0]
    widths = [len(rows) for name, rows in main.calls if name == "extend"]
    assert widths == [3] * 19 + [1] * 12  # twelve short ones, three steps each, in the two places beside the long one


def test_a_prompt_of_another_length_is_read_by_itself() -> None:
    stage = Stage(speak("abc", after="P"))
    run(stage.generator, [("P" * length, {"max_new_tokens": 3}) for length in (1, 2, 3, 200, 210, 50)], 6)
    blocks = [[len(row) for row in rows] for session in stage.sessions for name, rows in session.calls[:1] if name == "extend"]
    assert blocks == [[1, 2, 3], [50], [200, 210]]


def test_samples_share_one_prefill() -> None:
    stage = Stage(speak("abc"))
    found = run(stage.generator, [("P", {"samples": 5})], 8)
    assert [found[0].text(row) for row in range(5)] == ["abc"] * 5
    assert [len(rows) for name, rows in stage.sessions[0].calls if name == "extend"] == [1, 5, 5, 5]


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
    events = list(Batch(generator, 7).run(taking(requests(generator, wanted))))
    mine = [event for key, event in events if key == 0]
    assert isinstance(mine[-1], TgenError)
    assert len(errors(mine)) == 1
    assert len({event.index for event in mine if isinstance(event, Piece)}) == 6
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
    events = list(Batch(generator, 4).run(taking(todo), cancelled))
    assert not any(isinstance(event, Finished) for _, event in events)
    assert 0 < sum(isinstance(event, Piece) for _, event in events) < 100
    assert len(todo) == 46


def test_reading_a_long_prompt_can_be_cancelled() -> None:
    stage = Stage(speak("abc"), context=5000)
    events = list(
        Batch(stage.generator, 2).run(
            taking(requests(stage.generator, [("P" * 2000, {})])), lambda: bool(stage.sessions) and len(stage.sessions[0].calls) == 2
        )
    )
    assert not any(isinstance(event, Piece) for _, event in events)
    assert [len(rows[0]) for _, rows in stage.sessions[0].calls] == [CHUNK, CHUNK]


def test_it_waits_only_while_nothing_is_to_be_done() -> None:
    waits: list[bool] = []
    generator = Stage(speak("abc")).generator
    todo = requests(generator, [("P", {}), ("P", {})])

    def take(wait: bool) -> Request | None:
        waits.append(wait)
        return todo.pop(0) if wait and todo else None

    assert len([1 for _, event in Batch(generator, 4).run(take) if isinstance(event, Finished)]) == 2
    assert [wait for wait in waits if wait] == [True] * 3
    assert waits[0] and waits[-1]
