"""A session that is kept: what is read again and what is not, and that the text is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine.scripted import END, Played, ScriptedSession, byte_tokenizer, only
from tests.executors.test_session import model
from tgen.engine.generator import Generator
from tgen.engine.prefix import Memory, common
from tgen.events import Piece
from tgen.executors.open import sessions
from tgen.executors.session import Logits


class Kept(ScriptedSession):
    """A session of one row that can go back; breaks when it is told to."""

    broken = False

    def truncate(self, lengths: Sequence[int]) -> None:
        self.calls.append(("truncate", list(lengths)))
        assert self.rows is not None
        self.rows = [row[:length] for row, length in zip(self.rows, lengths, strict=True)]

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        if self.broken:
            self.rows = [(1, 2, 3)]  # whatever is left half done
            raise KeyboardInterrupt
        return super().extend(rows)


def echo(read: tuple[int, ...]) -> Any:
    """Says the first byte of what it has read, and the number of ids; then ends."""
    return only([END, read[0], 48 + len(read) % 10][len(read) % 3])


class Scene:
    """A generator whose sessions are kept."""

    def __init__(self) -> None:
        self.opened: list[Kept] = []
        self.generator = Generator(self._open, byte_tokenizer(), context=100, end_tokens=frozenset([END]))
        self.memory = Memory(self._open, 100)

    def _open(self, length: int, _: Sequence[Sequence[int]] | None) -> Kept:
        self.opened.append(Kept(echo, length))
        return self.opened[-1]

    def play(self, prompt: str, *, remember: bool = True, **options: Any) -> Played:
        resolved = self.generator.resolve({"temperature": 0, **options})
        return Played(list(self.generator.run(prompt, resolved, memory=self.memory if remember else None)))

    def read(self) -> list[list[int]]:
        """The first block of ids of every call since the last time."""
        blocks = [rows[0] for session in self.opened for name, rows in session.calls if name == "extend"]
        for session in self.opened:
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
    assert len(scene.opened) == 1


@pytest.mark.parametrize(("prompt", "cached"), [("abcd", 3), ("ab", 1), ("abX", 2), ("X", 0), ("Xbcd", 0), ("abcdefgh", 4)])
def test_text_is_that_without_memory(prompt: str, cached: int) -> None:
    scene = Scene()
    scene.play("abcd")
    played = scene.play(prompt, max_new_tokens=9)
    assert played.started.cached_tokens == cached
    assert played.text() == scene.play(prompt, remember=False, max_new_tokens=9).text()
    assert scene.memory.ids[: len(prompt)] == [*prompt.encode()]


def test_what_was_written_is_remembered_too() -> None:
    scene = Scene()
    text = scene.play("abc", ignore_eos=True, max_new_tokens=3).text()
    assert scene.memory.ids == [*scene.opened[0].rows[0]]  # type: ignore[index]
    assert scene.play("abc" + text[:1] + "?").started.cached_tokens >= 3


def test_samples_share_the_prompt_and_are_not_gone_on_from() -> None:
    scene = Scene()
    scene.play("abcd")
    first = scene.play("abcdef", samples=3)
    assert first.started.cached_tokens == 4
    assert first.text(2) == scene.play("abcdef", remember=False).text()
    assert scene.play("abcdef").started.cached_tokens == 0


def test_what_an_interruption_leaves_is_not_trusted() -> None:
    scene = Scene()
    scene.play("abcd")
    scene.opened[0].broken = True
    with pytest.raises(KeyboardInterrupt):
        scene.play("abcde")
    assert scene.memory.ids == []
    played = scene.play("abcde")
    assert played.started.cached_tokens == 0
    assert played.text() == scene.play("abcde", remember=False).text()


def test_a_reply_that_nobody_hears_out_is_remembered_as_far_as_it_was_read() -> None:
    scene = Scene()
    events = scene.generator.run("abc", scene.generator.resolve({"temperature": 0, "ignore_eos": True}), memory=scene.memory)
    for event in events:
        if isinstance(event, Piece):
            break
    events.close()  # type: ignore[attr-defined]
    assert scene.memory.ids == [*scene.opened[0].rows[0]]  # type: ignore[index]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "bloom"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_real_model_says_the_same(family: str, beams: int) -> None:
    made = Generator(sessions(model(family)), byte_tokenizer(), context=128)
    resolved = made.resolve({"temperature": 0, "max_new_tokens": 12, "num_beams": beams})
    memory = Memory(made.open_session, made.context)
    for prompt in ["the cat sat", "the cat sat on the mat", "the cat ran", "the cat", "a dog"]:
        kept = Played(list(made.run(prompt, resolved, memory=memory)))
        assert kept.text() == Played(list(made.run(prompt, resolved))).text()


def test_common() -> None:
    assert [common([1, 2, 3], other) for other in ([], [1], [1, 2, 4], [1, 2, 3, 4], [2])] == [0, 1, 2, 3, 0]
