"""From lines to records, with a model that follows a script: what is kept when a run ends before its time."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.scripted import END, Stage, only
from tgen.batch.journal import Journal
from tgen.batch.run import BatchRun
from tgen.errors import MemoryLimitError, UsageError
from tgen.text.chat import ChatTemplate

SLOW, QUICK = {"prompt": "P", "max_tokens": 900}, {"prompt": "Q"}


def script(read: tuple[int, ...]) -> np.ndarray:
    """P is never done with, Q at once."""
    return only(END if read[0] == ord("Q") else ord("a"))


def no_template() -> ChatTemplate:
    raise UsageError("scripted models do not talk")


def batch_run(generator: Any, journal: Journal) -> BatchRun:
    return BatchRun(generator, "scripted", no_template, {}, journal, ordered=True, size=4)


def stream(values: list[Any]) -> Any:
    return iter([io.BytesIO(b"".join(json.dumps(value).encode() + b"\n" for value in values))])


def written(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_text().splitlines()]


def test_what_was_answered_before_its_turn_is_kept_when_a_run_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Journal(path, resume=False) as journal:
        run = batch_run(Stage(script).generator, journal)
        assert list(run.run(stream([SLOW, *[QUICK] * 5]), lambda: run.count >= 3)) == [2, 3, 4]
    assert written(path) == [2, 3, 4]
    with Journal(path, resume=True) as journal:
        rest = batch_run(Stage(script).generator, journal)
        assert sorted(rest.run(stream([{**SLOW, "max_tokens": 3}, *[QUICK] * 5]), lambda: False)) == [1, 5, 6]
    assert written(path) == [2, 3, 4, 1, 5, 6]


def test_and_when_memory_gives_out(tmp_path: Path) -> None:
    """Nobody knows whose fault it is: no line is answered by it, and all of them can be gone on with."""
    stage, path = Stage(script), tmp_path / "out"
    journal = Journal(path, resume=False)
    run = batch_run(stage.generator, journal)

    def full(read: tuple[int, ...]) -> np.ndarray:
        if run.count >= 3:
            raise MemoryLimitError("out of memory", "buy some")
        return script(read)

    stage.script = full
    with journal, pytest.raises(MemoryLimitError) as failed:
        list(run.run(stream([SLOW, *[QUICK] * 3, SLOW]), lambda: False))
    assert "--batch-size" in str(failed.value.hint)
    assert "--resume" in str(failed.value.hint)
    assert written(path) == [2, 3, 4]


def test_progress_counts_every_line_that_needs_nothing_more(tmp_path: Path) -> None:
    lines = io.BytesIO(b'{"prompt": "Q"}\n\nnot JSON\n{"prompt": "Q", "top_k": -1}\n')
    with Journal(tmp_path / "out", resume=False) as journal:
        run = batch_run(Stage(script).generator, journal)
        assert sorted(run.run(iter([lines]), lambda: False)) == [1, 3, 4]
    assert (run.done, run.count, run.failed) == (4, 3, 2)
