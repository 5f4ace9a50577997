"""The native executor gives what torch gives, on every kernel that this processor runs, and the same bits however a text is cut."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DECODERS, ENCODERS, GOLDEN, golden_model
from tgen.arrays import Logits
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.library import kernels, load
from tgen.executors.native.open import open_executor, supports
from tgen.executors.native.packing import pack
from tgen.executors.native.session import NativeExecutor, NativeSession
from tgen.executors.native.weights import StoredMatrix, Weights
from tgen.executors.torch.session import TorchExecutor
from tgen.options import RunOptions

LIBRARY = load().library
if LIBRARY is None:
    pytest.skip(f"no native library: {load().problem}", allow_module_level=True)
KERNELS = list(kernels(LIBRARY))
LENGTHS = (1, 40, 7)
NATIVE = [name for name in DECODERS if supports(open_checkpoint(GOLDEN / name).spec) is None]

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_decoder = pytest.mark.parametrize("name", NATIVE)


@functools.cache
def executor(name: str, kernel: str = KERNELS[0], dtype: Any = "float32", threads: int = 2) -> NativeExecutor:
    return open_executor(open_checkpoint(GOLDEN / name), RunOptions(dtype=dtype, threads=threads), kernel)


def texts_of(name: str, lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    rng = np.random.default_rng(len(name))
    return [rng.integers(0, open_checkpoint(GOLDEN / name).spec.vocab, length).tolist() for length in lengths]


def sources_of(name: str, rows: int) -> list[list[int] | None]:
    if open_checkpoint(GOLDEN / name).spec.encoder is None:
        return [None] * rows
    return [*texts_of(name, [5 + 3 * row for row in range(rows)])]


def opened(of: NativeExecutor, sources: Sequence[Sequence[int] | None]) -> NativeSession:
    session = of.open()
    session.admit(sources)
    return session


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@every_kernel
@every_decoder
def test_logits_equal_those_of_torch(name: str, kernel: str) -> None:
    """Prompts of different lengths together, then steps, then a mixture of both, and tails."""
    found, expected = executor(name, kernel).open(), TorchExecutor(golden_model(name)).open()
    sources, rows = sources_of(name, 3), texts_of(name)
    found.admit(sources)
    expected.admit(sources)
    for blocks, tails in ((rows, None), ([[3], [2], [1]], None), ([[1, 2, 3], [5], [4, 4]], [2, 1, 0])):
        assert distance(found.extend(blocks, tails), expected.extend(blocks, tails)) < 1e-5


@every_kernel
@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states_equal_those_of_torch(name: str, kernel: str) -> None:
    texts = texts_of(name)
    with torch.inference_mode():
        wanted = [states.numpy() for states in golden_model(name).encode_texts(texts)]
    for found, expected in zip(executor(name, kernel).encode(texts), wanted, strict=True):
        assert distance(found, expected) < 1e-5


def test_attention_over_several_chunks_equals_torch() -> None:
    """1,100 positions are three chunks of 512; a decode step splits them between threads."""
    found, expected = executor("llama3").open(), TorchExecutor(golden_model("llama3")).open()
    text = texts_of("llama3", [1100])
    for session in (found, expected):
        session.admit([None])
    assert distance(found.extend(text), expected.extend(text)) < 1e-5
    assert distance(found.extend([[9]]), expected.extend([[9]])) < 1e-5


@functools.cache
def packed(name: str, number_format: int, threads: int) -> NativeExecutor:
    """An executor whose matrices are packed to 8 or 4 bits."""
    read = Weights._read

    def smaller(self: Weights, parameter: str) -> StoredMatrix:
        matrix = read(self, parameter)
        return matrix if "positions" in parameter else pack(LIBRARY, matrix, number_format, 1)  # type: ignore[arg-type]

    Weights._read = smaller  # type: ignore[method-assign]
    try:
        return open_executor(open_checkpoint(GOLDEN / name), RunOptions(threads=threads))
    finally:
        Weights._read = read  # type: ignore[method-assign]


def in_format(name: str, dtype: str, threads: int) -> NativeExecutor:
    if dtype in ("int8", "int4"):
        return packed(name, {"int8": 3, "int4": 4}[dtype], threads)
    return executor(name, dtype=dtype, threads=threads)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "int4"])
@every_decoder
def test_bits_do_not_depend_on_company_threads_or_cuts(name: str, dtype: str) -> None:
    text, sources = texts_of(name, [37])[0], sources_of(name, 16)
    expected = opened(in_format(name, dtype, 1), sources[:1]).extend([text])[0]
    for found in ways(in_format(name, dtype, 2), text, sources):
        assert np.array_equal(found, expected)


def ways(of: NativeExecutor, text: list[int], sources: list[list[int] | None]) -> Iterator[Logits]:
    """The last logits of a text: alone, beside 15 others, in chunks, stepped, after a wrong guess, in a copied row and restored."""
    yield opened(of, sources[:1]).extend([text])[0]
    yield opened(of, sources).extend([text, *([token] for token in range(15))])[0]
    for size in (1, 7, 16, 33):
        session = opened(of, sources[:1])
        for start in range(0, len(text), size):
            last = session.extend([text[start : start + size]])
        yield last[0]
    session = opened(of, sources[:1])
    session.extend([[*text[:20], 1, 2, 3]], [4])
    session.truncate([20])
    session.select([0, 0])
    session.extend([[5], text[20:30]])  # the copy shares its pages with a row that goes another way
    yield session.extend([[5], text[30:]])[1]
    if sources[0] is None:
        session = opened(of, sources[:1])
        session.extend([text[:30]])
        other = of.open()
        other.restore(25, session.state(25))
        yield other.extend([text[25:]])[0]


def test_a_copied_row_leaves_the_other_as_it_was() -> None:
    session, alone = opened(executor("llama3"), [None]), opened(executor("llama3"), [None])
    text = texts_of("llama3", [20])[0]
    session.extend([text])
    alone.extend([text])
    session.select([0, 0])
    session.extend([[1], [2]])
    session.select([1])
    alone.extend([[2]])
    assert np.array_equal(session.extend([[3]]), alone.extend([[3]]))


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    session = opened(executor("llama3"), [None])
    for bad in (-1, 10**6):
        with pytest.raises(ValueError, match="beyond the vocabulary"):
            session.extend([[1, bad]])
    assert np.array_equal(session.extend([[4]]), opened(executor("llama3"), [None]).extend([[4]]))


def test_a_failed_call_reads_nothing() -> None:
    session = opened(executor("llama3"), [None])
    session.extend([[1, 2, 3]])
    with pytest.raises(ValueError, match="at least one id"):
        session.extend([[]])
    assert np.array_equal(session.extend([[4]]), opened(executor("llama3"), [None]).extend([[1, 2, 3, 4]]))
