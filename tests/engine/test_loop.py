"""The loop on its own: rows of several prompts go on together, each with its own sampler."""

from __future__ import annotations

import numpy as np

from tests.engine.scripted import ScriptedSession, only
from tgen.engine.loop import Loop
from tgen.options import GenerationOptions
from tgen.sampling.sampler import Sampler

GREEDY = GenerationOptions(temperature=0)


def counting(read: tuple[int, ...]) -> np.ndarray:
    """Always says one more than what it read last."""
    return only(read[-1] + 1, 100)


def start(prompts: list[list[int]], sources: list[int]) -> tuple[Loop, ScriptedSession]:
    session = ScriptedSession(counting)
    return Loop(session, prompts, [Sampler(GREEDY, 0, row, prompts[source]) for row, source in enumerate(sources)], sources), session


def tokens(loop: Loop) -> list[int]:
    return [drawn.token for drawn in loop.column()]


def test_rows_continue_their_own_prompts() -> None:
    loop, _ = start([[10], [20, 30], [50]], [1, 0, 1])
    assert [tokens(loop) for _ in range(3)] == [[31, 11, 31], [32, 12, 32], [33, 13, 33]]


def test_rows_that_are_kept_go_on() -> None:
    loop, _ = start([[10], [20], [30]], [0, 1, 2])
    tokens(loop)
    loop.keep([2, 0])
    assert [tokens(loop), tokens(loop)] == [[32, 12], [33, 13]]


def test_what_was_drawn_is_read_only_when_more_is_asked_for() -> None:
    loop, session = start([[10], [20]], [0, 1])
    tokens(loop)
    loop.keep([1])
    assert session.calls == [("extend", [[10], [20]]), ("select", [0, 1]), ("select", [1])]
    tokens(loop)
    assert session.calls[3:] == [("extend", [[21]])]


def test_logits_come_as_the_model_gave_them() -> None:
    """Before penalties, which here change what is drawn."""
    options = GenerationOptions(temperature=0, repetition_penalty=100)
    loop = Loop(ScriptedSession(lambda _: [1.0, 5.0]), [[1]], [Sampler(options, 0, 0, [1])], [0])
    (drawn,) = loop.column()
    assert (drawn.token, drawn.logits.tolist()) == (0, [1.0, 5.0])
