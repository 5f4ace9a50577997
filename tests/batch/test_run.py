"""From lines to records, with a model that follows a script: what is kept when a run ends before its time."""

from __future__ import annotations

import gc
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.scripted import END, VOCAB, Stage, only
from tgen import files
from tgen.batch import journal as journal_module
from tgen.batch.answering import Answerer
from tgen.batch.journal import Journal, encode
from tgen.batch.run import AHEAD, BatchRun
from tgen.errors import MemoryLimitError, TgenError, UsageError
from tgen.text.chat import ChatTemplate

SLOW, QUICK = {"prompt": "P", "max_tokens": 900}, {"prompt": "Q"}


def script(read: tuple[int, ...]) -> np.ndarray:
    """P is never done with, Q at once."""
    return only(END if read[0] == ord("Q") else ord("a"))


def no_template() -> ChatTemplate:
    raise UsageError("scripted models do not talk")


def batch_run(generator: Any, journal: Journal) -> BatchRun:
    return BatchRun(Answerer(generator, "scripted", no_template, {}, {}), journal, ordered=True, size=4)


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


def test_a_line_that_memory_does_not_suffice_for_is_answered_by_an_error(tmp_path: Path) -> None:
    """The others are answered as if it had not been there."""
    stage, path = Stage(script), tmp_path / "out"

    def small(read: tuple[int, ...]) -> np.ndarray:
        if len(read) > 50:
            raise MemoryLimitError("out of memory", "use a smaller model")
        return script(read)

    stage.script = small
    with Journal(path) as journal:
        run = batch_run(stage.generator, journal)
        list(run.run(stream([*[QUICK] * 3, {"prompt": "Q" * 60}, QUICK]), lambda: False))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("error", {}).get("code") for record in records] == [None, None, None, "memory", None]
    assert run.failed == 1


def test_progress_counts_every_line_that_needs_nothing_more(tmp_path: Path) -> None:
    lines = io.BytesIO(b'{"prompt": "Q"}\n\nnot JSON\n{"prompt": "Q", "top_k": -2}\n')
    with Journal(tmp_path / "out", resume=False) as journal:
        run = batch_run(Stage(script).generator, journal)
        assert sorted(run.run(iter([lines]), lambda: False)) == [1, 3, 4]
    assert (run.done, run.count, run.failed) == (4, 3, 2)


def answered_before_the_first(tmp_path: Path, quick: list[dict[str, Any]], size: int) -> int:
    """How many lines are answered while the first is still being written."""
    path = tmp_path / "out"
    with Journal(path) as journal:
        run = BatchRun(Answerer(Stage(script).generator, "scripted", no_template, {}, {}), journal, ordered=True, size=size)
        order = list(run.run(stream([SLOW, *quick]), lambda: False))
    assert sorted(order) == written(path) == [*range(1, len(quick) + 2)]
    return order.index(1)


def test_a_long_answer_does_not_let_others_run_ahead_without_limit(tmp_path: Path) -> None:
    assert 0 < answered_before_the_first(tmp_path, [QUICK] * 200, size=2) <= 2 * AHEAD


def test_nor_may_their_records_take_memory_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.batch.run.AHEAD_BYTES", 30_000)
    assert 2 < answered_before_the_first(tmp_path, [{**QUICK, "id": "x" * 10_000}] * 30, size=2) < 6


def test_records_that_were_written_take_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.batch.run.AHEAD_BYTES", 30_000)
    long = {**QUICK, "id": "x" * 10_000}
    with Journal(tmp_path / "out") as journal:
        run = BatchRun(Answerer(Stage(script).generator, "scripted", no_template, {}, {}), journal, ordered=True, size=2)
        order = list(run.run(stream([*[long] * 8, SLOW, *[QUICK] * 5]), lambda: False))
    assert order[-1] == 9, "the others were answered beside it"


def record(number: int, *, failed: bool = False, text: str = "") -> bytes:
    return encode({"line": number, **({"error": {"message": text}} if failed else {"model": "m", "text": text})})


def test_a_record_that_is_replaced_stays_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(record(1) + record(2, failed=True) + record(3) + record(4, failed=True))
    with Journal(path, resume=True, retry_errors=True) as journal:
        assert [number for number in range(1, 6) if number not in journal.written] == [2, 4, 5]
        assert (journal.count, journal.failed, journal.highest) == (4, 2, 4)
        journal.write(2, record(2, text="new"), failed=False)
        assert written(path) == [1, 2, 3, 4, 2]
        journal.write(5, record(5), failed=False)
        assert (journal.count, journal.failed, journal.highest) == (5, 1, 5)
    assert path.read_bytes() == record(1) + record(2, text="new") + record(3) + record(4, failed=True) + record(5)


def test_what_a_killed_retry_left_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "out"
    left = record(1, failed=True) + record(2, failed=True) + record(1, failed=True, text="still") + record(2, text="new") + b'{"line": 3'
    for ordered in (True, False):
        path.write_bytes(left)
        with Journal(path, resume=True, ordered=ordered) as journal:
            assert (journal.count, journal.failed, len(journal.written)) == (2, 1, 2)
            journal.write(3, record(3), failed=False)
        assert written(path) == [1, 2, 3]
        assert path.read_bytes().startswith(record(1, failed=True, text="still") + record(2, text="new"))
    with pytest.raises(UsageError, match="two records of line 2"):
        path.write_bytes(record(2) + record(2, failed=True))
        Journal(path, resume=True)


def test_an_unordered_retry_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(record(3) + record(1, failed=True) + record(2))
    with Journal(path, resume=True, retry_errors=True, ordered=False) as journal:
        journal.write(1, record(1), failed=False)
    assert written(path) == [3, 2, 1]


def test_a_disk_that_is_full_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "out"
    path.write_bytes(record(1, failed=True))
    with monkeypatch.context() as patch, pytest.raises(TgenError, match="No space left") as stopped:
        patch.setattr("tgen.batch.journal.write_atomically", full)
        with Journal(path, resume=True, retry_errors=True) as journal:
            journal.write(1, record(1), failed=False)
    assert "--resume removes the earlier" in str(stopped.value.hint)
    assert path.read_bytes() == record(1, failed=True) + record(1)
    with Journal(path, resume=True):
        pass
    assert path.read_bytes() == record(1)


def test_a_file_that_was_replaced_while_its_lock_was_waited_for_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run that ends at this moment puts a new file in the place of the old one, which nobody would read."""
    path, other = tmp_path / "out", tmp_path / "new"
    path.write_bytes(record(1))
    other.write_bytes(record(1) + record(2))
    lock = files.lock

    def late(file: int, place: Path) -> None:
        if other.exists():
            os.replace(other, place)
        lock(file, place)

    monkeypatch.setattr(journal_module, "lock", late)
    with Journal(path, resume=True) as journal:
        journal.write(3, record(3), failed=False)
    assert written(path) == [1, 2, 3]


def test_a_model_whose_numbers_are_not_finite_has_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Journal(path) as journal:
        run = batch_run(Stage(lambda _: np.full(VOCAB, np.nan)).generator, journal)
        list(run.run(stream([QUICK]), lambda: False))
    assert json.loads(path.read_text())["error"]["code"] == "numerical"


def test_a_line_that_was_answered_takes_no_memory(tmp_path: Path) -> None:
    """Not even until Python looks for circles: an error may hold on to all that was at hand when it was raised."""
    wanted = [{"prompt": 5, "id": "x" * 10**6}, {"prompt": "a", "id": "x" * 10**6, "top_k": -2}, {"prompt": [10**9], "id": "x" * 10**6}]
    lines = stream([line for line in wanted for _ in range(30)])
    with Journal(tmp_path / "out") as journal:
        run = BatchRun(Answerer(Stage(script).generator, "scripted", no_template, {}, {}), journal, ordered=True, size=1)
        gc.disable()
        tracemalloc.start()
        try:
            assert len(list(run.run(lines, lambda: False))) == run.failed == 90
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()
    assert peak < 30 * 10**6
