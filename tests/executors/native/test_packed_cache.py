"""The cache of packed weights: a second start uses it, and whatever happens to it costs time, not the run."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.executors.native.models import opened, texts_of
from tgen.arrays import Logits
from tgen.checkpoint import digests
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import UsageError
from tgen.executors.native import packed_cache
from tgen.executors.native.open import open_executor
from tgen.executors.native.packing import Packer
from tgen.options import Quantize, RunOptions

TEXT = texts_of("mistral", [20])[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "tgen" / "packed"


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many matrices each packing has packed."""
    done: list[int] = []
    pack_all = Packer.pack_all

    def counted(self: Packer, weights: object, places: dict[str, object], bar: object) -> object:
        done.append(len(places))
        return pack_all(self, weights, places, bar)  # type: ignore[arg-type]

    monkeypatch.setattr(Packer, "pack_all", counted)
    yield done


def logits(folder: Path = GOLDEN / "mistral", quantize: Quantize = "int8") -> Logits:
    executor = open_executor(open_checkpoint(folder), RunOptions(quantize=quantize, threads=2))
    return opened(executor, [None]).extend([TEXT])


def packed_file(cache: Path) -> Path:
    (found,) = cache.glob("*.packed")
    return found


def test_a_second_start_reads_what_the_first_packed(cache: Path, packings: list[int]) -> None:
    first, second = logits(), logits()
    assert np.array_equal(first, second)
    assert packings == [15]
    assert oct(cache.stat().st_mode)[-3:] == "700"


@pytest.mark.usefixtures("cache")
def test_each_quantisation_has_its_own_file(packings: list[int]) -> None:
    assert not np.array_equal(logits(quantize="int8"), logits(quantize="int4"))
    assert not np.array_equal(logits(quantize="int8"), logits(quantize="int4"))
    assert len(packings) == 2


@pytest.mark.usefixtures("cache")
def test_other_weights_have_another_file(packings: list[int], tmp_path: Path) -> None:
    """The content counts, not the name, size and time of a file."""
    folder = shutil.copytree(GOLDEN / "mistral", tmp_path / "model")
    first = logits(folder)
    weights = folder / "model.safetensors"
    times = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1000:-500] = data[-500:]  # the same size
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not np.array_equal(logits(folder), first)
    moved = shutil.copytree(GOLDEN / "mistral", tmp_path / "other place")
    assert np.array_equal(logits(moved), first)
    assert len(packings) == 2


@pytest.mark.parametrize("place", [0, 9, 17, 40, 5000, -1])
def test_a_damaged_file_is_made_anew(cache: Path, packings: list[int], place: int) -> None:
    first = logits()
    path = packed_file(cache)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert np.array_equal(logits(), first)
    assert np.array_equal(logits(), first)
    assert len(packings) == 2


@pytest.mark.parametrize("size", [0, 10, 24, 100, 4096, 5000])
def test_a_truncated_file_is_made_anew(cache: Path, packings: list[int], size: int) -> None:
    first = logits()
    path = packed_file(cache)
    path.write_bytes(path.read_bytes()[:size])
    assert np.array_equal(logits(), first)
    assert len(packings) == 2


@pytest.mark.parametrize("problem", ["a file in its place", "no space"])
def test_a_cache_that_cannot_be_written_costs_only_a_note(
    cache: Path, packings: list[int], problem: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if problem == "no space":

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "there")

        monkeypatch.setattr(packed_cache, "write_atomically", full)
    else:
        cache.parent.parent.mkdir()
        cache.parent.write_text("")
    assert np.array_equal(logits(), logits())
    assert len(packings) == 2
    said = capfd.readouterr().err
    assert said.count("note: the packed weights are not kept for the next run: ") == 2
    assert ("No space left on device" if problem == "no space" else str(cache.parent)) in said


def test_the_files_used_longest_ago_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {}
    for age, name in enumerate(("llama3", "qwen2", "mistral")):
        before = set(cache.glob("*.packed"))
        open_executor(open_checkpoint(GOLDEN / name), RunOptions(quantize="int8"))
        (paths[name],) = set(cache.glob("*.packed")) - before
        os.utime(paths[name], (age, age))
    open_executor(open_checkpoint(GOLDEN / "llama3"), RunOptions(quantize="int8"))  # uses it, so it is the newest
    total = sum(path.stat().st_size for path in cache.glob("*.packed"))
    monkeypatch.setenv("TGEN_CACHE_GB", str(total / 1e9))
    abandoned = cache / ".x.packed.123.partial"
    abandoned.write_text("")
    os.utime(abandoned, (0, 0))
    open_executor(open_checkpoint(GOLDEN / "mistral"), RunOptions(quantize="int4"))
    assert paths["llama3"].exists()
    assert not paths["qwen2"].exists()
    assert not abandoned.exists()
    assert sum(path.stat().st_size for path in cache.glob("*.packed")) <= total


def test_a_limit_of_zero_keeps_nothing(
    cache: Path, packings: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TGEN_CACHE_GB", "0")
    assert np.array_equal(logits(), logits())
    assert len(packings) == 2
    assert not cache.exists()
    monkeypatch.setenv("TGEN_CACHE_GB", "1e-6")
    logits()
    assert "and TGEN_CACHE_GB allows 1e-06" in capfd.readouterr().err
    monkeypatch.setenv("TGEN_CACHE_GB", "much")
    with pytest.raises(UsageError, match="TGEN_CACHE_GB='much'"):
        logits()


def test_runs_that_pack_at_once_do_not_disturb_each_other(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: logits(), range(4))
    assert all(np.array_equal(first, other) for other in others)
    assert np.array_equal(logits(), first)
    assert len(list(cache.iterdir())) <= 2  # the packed weights and, unless the model was just written, its digest


@pytest.mark.parametrize("size", [0, 15, 16, 64, 65, 200])
def test_a_digest_does_not_depend_on_how_much_is_read_at_once(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BLOCK", 64)
    monkeypatch.setattr(digests, "PIECE", 16)
    content = os.urandom(size)
    (tmp_path / "weights").write_bytes(content)
    blocks = [hashlib.blake2b(content[start : start + 64]).digest() for start in range(0, size, 64)]
    found = digests.Digests(tmp_path, 2).of(tmp_path / "weights")
    assert found == hashlib.blake2b(b"".join(blocks), digest_size=32).hexdigest()
