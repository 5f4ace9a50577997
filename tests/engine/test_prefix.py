"""A kept session: which ids the model reads again, and that the text stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine.scripted import END, Played, ScriptedExecutor, ScriptedSession, byte_tokenizer, only
from tests.executors.test_session import model
from tgen.arrays import Logits
from tgen.engine.generator import Generator
from tgen.engine.prefix import Prefix, common
from tgen.events import Piece
from tgen.executors.torch.session import TorchExecutor


class Breaking(ScriptedSession):
    """A session that breaks when it is told to."""

    broken = False

    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> Logits:
        if self.broken:
            self.rows = [(1, 2, 3)]  # leaves the row half finished
            raise KeyboardInterrupt
        return super().extend(rows, tails)


class BreakingExecutor(ScriptedExecutor):
    """Opens sessions that can break."""

    broken = False

    def open(self) -> ScriptedSession:
        session = Breaking(self.script, self.context)
        session.broken = self.broken
        self.sessions.append(session)
        return session


def echo(read: tuple[int, ...]) -> Any:
    """A script that writes the first byte read and the number of ids read, and then ends."""
    return only([END, read[0], 48 + len(read) % 10][len(read) % 3])


class Scene:
    """A generator whose last row is kept."""

    def __init__(self) -> None:
        self.executor = BreakingExecutor(echo, 100)
        self.generator = Generator(self.executor, byte_tokenizer(), context=100, end_tokens=frozenset([END]))
        self.prefix = Prefix(self.executor)

    def play(self, prompt: str, *, remember: bool = True, **options: Any) -> Played:
        resolved = self.generator.resolve({"temperature": 0, **options})
        return Played(list(self.generator.run(prompt, resolved, prefix=self.prefix if remember else None)))

    def read(self) -> list[list[int]]:
        """The first block of ids of every call since the last time."""
        blocks = [rows[0] for session in self.executor.sessions for name, rows in session.calls if name == "extend"]
        for session in self.executor.sessions:
            session.calls.clear()
        return blocks


def test_only_what_is_new_is_read() -> None:
    scene = Scene()
    scene.play("abcd")
    scene.read()
    played = scene.play("abcdXY")
    assert scene.read()[0] == [*b"abcdXY"][played.started.cached_tokens :]
    assert played.started.cached_tokens == 4
    assert played.started.prompt_tokens == 6


@pytest.mark.parametrize(("prompt", "cached"), [("abcd", 3), ("ab", 1), ("abX", 2), ("X", 0), ("Xbcd", 0), ("abcdefgh", 4)])
def test_text_is_that_without_a_prefix(prompt: str, cached: int) -> None:
    scene = Scene()
    scene.play("abcd")
    played = scene.play(prompt, max_new_tokens=9)
    assert played.started.cached_tokens == cached
    assert played.text() == scene.play(prompt, remember=False, max_new_tokens=9).text()
    assert scene.prefix.ids[: len(prompt)] == [*prompt.encode()]


def test_what_was_written_is_remembered_too() -> None:
    scene = Scene()
    written = scene.play("abc", ignore_eos=True, max_new_tokens=3).finished[0].ids
    assert scene.prefix.ids == [*b"abc", *written[:2]]
    assert scene.play("abc?").started.cached_tokens == 3


def test_of_several_samples_the_prompt_is_remembered() -> None:
    scene = Scene()
    scene.play("abcd")
    first = scene.play("abcdef", samples=3)
    assert first.started.cached_tokens == 4
    assert first.text(2) == scene.play("abcdef", remember=False).text()
    assert scene.play("abcdef").started.cached_tokens == 5
    assert scene.play("abcdef").text() == scene.play("abcdef", remember=False).text()


def test_what_an_interruption_leaves_is_not_trusted() -> None:
    scene = Scene()
    scene.play("abcd")
    scene.executor.broken = True
    with pytest.raises(KeyboardInterrupt):
        scene.play("abcde")
    assert scene.prefix.ids == []
    scene.executor.broken = False
    played = scene.play("abcde")
    assert played.started.cached_tokens == 0
    assert played.text() == scene.play("abcde", remember=False).text()


def test_a_reply_that_nobody_hears_out_is_remembered_as_far_as_it_was_read() -> None:
    scene = Scene()
    events = scene.generator.run("abc", scene.generator.resolve({"temperature": 0, "ignore_eos": True}), prefix=scene.prefix)
    for event in events:
        if isinstance(event, Piece):
            break
    events.close()  # type: ignore[attr-defined]
    assert scene.prefix.ids == [*b"abc", END]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "bloom"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_real_model_says_the_same(family: str, beams: int) -> None:
    made = Generator(TorchExecutor(model(family)), byte_tokenizer(), context=128)
    resolved = made.resolve({"temperature": 0, "max_new_tokens": 12, "num_beams": beams})
    prefix = Prefix(made.executor)
    for prompt in ["the cat sat", "the cat sat on the mat", "the cat ran", "the cat", "a dog"]:
        kept = Played(list(made.run(prompt, resolved, prefix=prefix)))
        assert kept.text() == Played(list(made.run(prompt, resolved))).text()


def test_common() -> None:
    assert [common([1, 2, 3], other) for other in ([], [1], [1, 2, 4], [1, 2, 3, 4], [2])] == [0, 1, 2, 3, 0]
