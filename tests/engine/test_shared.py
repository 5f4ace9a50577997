"""Beginnings that requests share are read once, and never change a text; the tokens of a prompt are scored."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.engine.scripted import END, START, VOCAB, ScriptedExecutor, byte_tokenizer
from tgen.engine.generator import Generator
from tgen.engine.prefix import common
from tgen.engine.request import Request
from tgen.engine.scheduler import Scheduler
from tgen.engine.shared import SharedPrefixes
from tgen.errors import CapacityError, MemoryLimitError, TgenError
from tgen.events import Event, Finished, Piece, Started

LONG = "The beginning that all of them have, and that is longer than a page of the cache. "


def noise(read: tuple[int, ...]) -> np.ndarray:
    """Logits that depend on everything read, so that a wrong row would write another text."""
    return np.random.default_rng(hash(read) % 2**32).normal(size=VOCAB) * 3 - (np.arange(VOCAB) >= 128) * 50


class Scene:
    """A scheduler whose requests share prefixes."""

    def __init__(self, rows: int = 8, most_bytes: float = math.inf, most_rows: int = 64) -> None:
        self.executor = ScriptedExecutor(noise)
        self.generator = Generator(
            self.executor, byte_tokenizer(), context=1000, end_tokens=frozenset([END]), start_token=START, guess=False
        )
        self.prefixes = SharedPrefixes(self.executor, most_bytes, most_rows)
        self.scheduler = Scheduler(self.executor, rows)
        self.told: dict[int, list[Event | TgenError]] = {}

    def add(self, key: int, prompt: str, **options: int) -> None:
        self.told[key] = []
        self.scheduler.add(self.generator.job(Request(key, prompt, self.generator.resolve(options)), prefix=self.prefixes))

    def run(self) -> None:
        while not self.scheduler.idle:
            for key, event in self.scheduler.step():
                self.told[key].append(event)

    def text(self, key: int, index: int = 0) -> str:
        return "".join(event.text for event in self.told[key] if isinstance(event, Piece) and event.index == index)

    def cached(self, key: int) -> int:
        [started] = [event for event in self.told[key] if isinstance(event, Started)]
        return started.cached_tokens


def alone(prompt: str, **options: int) -> str:
    return Generator(ScriptedExecutor(noise), byte_tokenizer(), context=1000, end_tokens=frozenset([END]), guess=False).generate(
        prompt, **options
    )


def test_requests_that_come_together_read_their_beginning_once() -> None:
    scene = Scene()
    prompts = {key: f"{LONG}Ending {key}" for key in range(6)}
    for key, prompt in prompts.items():
        scene.add(key, prompt, seed=key, max_new_tokens=5 + key, samples=1 + key % 2)
    scene.run()
    assert [scene.text(key) for key in prompts] == [
        alone(prompt, seed=key, max_new_tokens=5 + key, samples=1 + key % 2) for key, prompt in prompts.items()
    ]
    assert scene.cached(0) == 0
    assert all(scene.cached(key) >= len(LONG) for key in range(1, 6))


def test_a_later_request_copies_the_row_of_one_that_has_ended() -> None:
    scene = Scene()
    for key in (0, 1, 2):
        scene.add(key, f"{LONG}Ending {key}", seed=1, max_new_tokens=4)
        scene.run()
        assert scene.text(key) == alone(f"{LONG}Ending {key}", seed=1, max_new_tokens=4)
    assert scene.cached(1) == scene.cached(2) == len(f"{LONG}Ending ")
    whole = f"{LONG}Ending 0{scene.text(0)}"
    scene.add(3, f"{whole} and on", seed=1, max_new_tokens=4)
    scene.run()
    assert scene.cached(3) >= len(whole) - 1, "a conversation goes on with its own row"


def test_a_request_joins_one_that_is_being_continued() -> None:
    scene = Scene()
    scene.add(0, f"{LONG}A", seed=1, max_new_tokens=60)
    while not scene.text(0):
        for key, event in scene.scheduler.step():
            scene.told[key].append(event)
    scene.add(1, f"{LONG}B", seed=2, max_new_tokens=9)
    scene.run()
    assert scene.cached(1) == len(LONG)
    assert scene.text(0) == alone(f"{LONG}A", seed=1, max_new_tokens=60)
    assert scene.text(1) == alone(f"{LONG}B", seed=2, max_new_tokens=9)


def test_a_cancelled_request_leaves_its_row_and_the_others_alone() -> None:
    scene = Scene()
    for key in (0, 1, 2):
        scene.add(key, f"{LONG}{key}", seed=key, max_new_tokens=30)
    for _ in range(4):
        for key, event in scene.scheduler.step():
            scene.told[key].append(event)
    scene.scheduler.cancel(0)
    scene.run()
    assert [scene.text(key) for key in (1, 2)] == [alone(f"{LONG}{key}", seed=key, max_new_tokens=30) for key in (1, 2)]
    assert scene.prefixes.longest(list(f"{LONG}x".encode())) == len(LONG)


def test_the_store_keeps_to_its_limits() -> None:
    scene = Scene(most_rows=2)
    for key, letter in enumerate("abc"):
        scene.add(key, letter * 40, seed=1, max_new_tokens=1)
        scene.run()
    known = [scene.prefixes.longest([ord(letter)] * 60) for letter in "abc"]
    assert known == [0, 40, 40]
    small = Scene(most_bytes=50)
    for key, letter in enumerate("ab"):
        small.add(key, letter * 40, seed=1, max_new_tokens=1)
        small.run()
    assert [small.prefixes.longest([ord(letter)] * 60) for letter in "ab"] == [0, 40]
    assert small.prefixes.bytes <= 50


def test_rows_that_are_only_kept_give_way() -> None:
    """To requests that need the memory, and when it runs out."""
    scene = Scene()
    scene.executor.free = 300
    scene.add(0, "a" * 100, seed=1, max_new_tokens=1)
    scene.run()
    assert scene.prefixes.bytes
    for key in (1, 2):
        scene.add(key, chr(97 + key) * 60, seed=1, max_new_tokens=20)
    scene.run()
    assert scene.text(2) == alone("c" * 60, seed=1, max_new_tokens=20)
    assert scene.prefixes.longest([97] * 200) == 0

    broken = Scene()
    broken.add(0, "a" * 100, seed=1, max_new_tokens=1)
    broken.run()
    session = broken.executor.sessions[0]
    extend = session.extend
    failed: list[int] = []

    def fail(*arguments: object) -> object:
        if not failed:
            failed.append(1)
            raise MemoryLimitError("full")
        return extend(*arguments)  # type: ignore[arg-type]

    session.extend = fail  # type: ignore[method-assign, assignment]
    broken.add(1, "b" * 50, seed=1, max_new_tokens=3)
    broken.run()
    assert broken.text(1) == alone("b" * 50, seed=1, max_new_tokens=3)
    assert broken.prefixes.longest([97] * 200) == 0


@pytest.mark.parametrize("write", [True, False])
def test_the_tokens_of_a_prompt_are_scored(write: bool) -> None:
    scene = Scene()
    prompt = LONG * 3  # more than is read at once
    scene.add(0, f"{LONG}other", seed=1, max_new_tokens=40)
    request = Request(1, prompt, scene.generator.resolve({"max_new_tokens": 2, "logprobs": 2, "seed": 1}), 2, write)
    scene.told[1] = []
    scene.scheduler.add(scene.generator.job(request, prefix=scene.prefixes))
    scene.run()
    [started] = [event for event in scene.told[1] if isinstance(event, Started)]
    ids = prompt.encode()
    assert [token.score.id for token in started.scores] == list(ids[1:])
    for place in (1, 63, 64, 65, 200):
        logits = noise(tuple(ids[:place])).astype(np.float32).astype(np.float64)
        wanted = logits - np.log(np.exp(logits).sum())
        token = started.scores[place - 1]
        assert token.score.logprob == pytest.approx(wanted[ids[place]], abs=1e-5)
        assert [one.id for one in token.alternatives] == list(np.argsort(-wanted)[:2])
    [finished] = [event for event in scene.told[1] if isinstance(event, Finished)]
    assert (finished.token_count, finished.reason) == ((2 if write else 0), "length")
    assert scene.text(1) == (alone(prompt, max_new_tokens=2, seed=1) if write else "")
    assert scene.text(0) == alone(f"{LONG}other", seed=1, max_new_tokens=40)


def test_a_prompt_that_is_only_scored_may_fill_the_context() -> None:
    scene = Scene()
    resolved = scene.generator.resolve({})
    scene.generator.job(Request(0, "a" * 1000, resolved, 0, write=False))
    for prompt, write in (("a" * 1001, False), ("a" * 1000, True)):
        with pytest.raises(CapacityError):
            scene.generator.job(Request(0, prompt, resolved, 0, write=write))


def test_common() -> None:
    for one, other, wanted in (([], [1], 0), ([1], [1], 1), ([1, 2, 3], [1, 2], 2), ([1, 2, 3, 4], [1, 2, 9, 4], 2), ([2], [1], 0)):
        assert common(one, other) == common(other, one) == wanted
