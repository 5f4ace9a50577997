"""A seeded few of the damaged checkpoints that `python -m tests.fuzz` runs by the thousand."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from tests.fuzz.bins import ENDLESS
from tests.fuzz.cases import KINDS, Fuzzer
from tests.fuzz.runner import Ended, Worker, verdict
from tgen.checkpoint.bins import OLD_MAGIC, OLD_VERSION

pytest.importorskip("sentencepiece")
# What stands before the dictionary of tensors, and the dictionary, in a file from before there were archives; then come its keys.
OLD_START = b"".join(pickle.dumps(value, protocol=2) for value in (OLD_MAGIC, OLD_VERSION, {"little_endian": True}, {})) + b"\x80\x02"
COUNT = 12 * len(KINDS)


@pytest.mark.long
def test_every_damaged_folder_ends_in_one_clear_error_or_in_text(worker: Worker, tmp_path: Path) -> None:
    fuzzer = Fuzzer(1, KINDS, tmp_path, worker, heavy=False)
    cases = [fuzzer.run(number) for number in range(COUNT)]
    assert [(case.number, case.mutation.name, case.wrong, case.ended.err) for case in cases if case.wrong] == []
    codes = [case.ended.code for case in cases]
    assert codes.count(0) > COUNT / 5  # not all damage matters
    assert codes.count(3) > COUNT / 3


def test_a_whole_folder_is_judged_to_be_right(worker: Worker) -> None:
    ended = worker.run("generate", "Once", "-n", "3", "-m", str(GOLDEN / "gpt2"))
    assert verdict(ended) is None
    assert ended.out
    assert verdict(ended, refused=True) == "does what it should have refused"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(worker: Worker, copy_golden: Callable[[str], Path], name: str) -> None:
    folder = copy_golden("gpt2")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    ended = worker.run("generate", "Once", "-m", str(folder))
    assert verdict(ended, refused=True) is None, ended
    assert name in ended.err


@pytest.mark.parametrize("what", ENDLESS)
def test_no_program_in_a_bin_keeps_a_reader_busy(worker: Worker, copy_golden: Callable[[str], Path], what: str) -> None:
    folder = copy_golden("llama2")
    for program in (b"\x80\x02" + ENDLESS[what], OLD_START + ENDLESS[what]):
        (folder / "pytorch_model.bin").write_bytes(program)
        assert verdict(worker.run("info", str(folder)), refused=True) is None


def ended(code: int, err: str, killed: str | None = None, memory: int = 0) -> Ended:
    return Ended(code, killed, 0.1, memory, b"", err)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (ended(3, "error: a\nhint: b\n"), None),
        (ended(3, "warning: w\nerror: a\nhint: b\n"), None),
        (ended(3, "error: a\n"), "gives no hint"),
        (ended(2, "error: a\n"), "gives no hint"),
        (ended(3, "error: a\nb\nhint: c\n"), "ends without one clear error"),
        (ended(3, "hint: b\n"), "ends without one clear error"),
        (ended(1, "error: unexpected X\nhint: b\n"), "ends with exit code 1"),
        (ended(3, "Traceback (most recent call last):\nerror: a\nhint: b\n"), "ends in a traceback"),
        (ended(3, f"error: {'x' * 2000}\nhint: b\n"), "says too much in one line"),
        (ended(-9, "", killed="hangs"), "hangs"),
        (ended(-11, ""), "died of signal 11"),
        (ended(0, "", memory=3 * 2**30), "takes too much memory"),
        (ended(0, "UserWarning: x\n"), "says something that is no message"),
    ],
)
def test_the_judge_can_tell(found: Ended, wrong: str | None) -> None:
    assert verdict(found) == wrong
