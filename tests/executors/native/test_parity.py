"""The native executor gives what torch gives, on every kernel that this processor runs, and the same bits however a text is cut."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.executors.native.models import (
    DTYPES,
    KERNELS,
    READERS,
    distance,
    every_decoder_on_every_kernel,
    executor,
    in_every_type,
    on_every_kernel,
    opened,
    sources_of,
    texts_of,
    torch_model,
)
from tgen.arrays import Logits
from tgen.executors.native.session import NativeExecutor
from tgen.executors.torch.session import TorchExecutor

LENGTHS = (1, 40, 7)


def read(of: Any, name: str) -> list[Logits]:
    """Prompts of different lengths together, then steps, then a mixture of both, and tails."""
    session, rows = of.open(), texts_of(name, LENGTHS)
    session.admit(sources_of(name, 3))
    asked: list[tuple[list[list[int]], list[int] | None]] = [(rows, None), ([[3], [2], [1]], None), ([[1, 2, 3], [5], [4, 4]], [2, 1, 0])]
    return [session.extend(blocks, tails) for blocks, tails in asked]


@functools.cache
def read_by_torch(name: str) -> list[Logits]:
    return read(TorchExecutor(torch_model(name)), name)


@every_decoder_on_every_kernel
def test_logits_equal_those_of_torch(name: str, kernel: str) -> None:
    for found, expected in zip(read(executor(name, kernel), name), read_by_torch(name), strict=True):
        assert distance(found, expected) < 1e-5


@functools.cache
def encoded_by_torch(name: str) -> list[np.ndarray]:
    with torch.inference_mode():
        return [states.numpy() for states in torch_model(name).encode_texts(texts_of(name, LENGTHS))]


@pytest.mark.parametrize(("name", "kernel"), on_every_kernel(READERS))
def test_hidden_states_equal_those_of_torch(name: str, kernel: str) -> None:
    for found, expected in zip(executor(name, kernel).encode(texts_of(name, LENGTHS)), encoded_by_torch(name), strict=True):
        assert distance(found, expected) < 1e-5


@pytest.mark.parametrize(("name", "dtype", "kernel"), in_every_type(DTYPES, KERNELS[:1]))
def test_bits_do_not_depend_on_company_threads_or_cuts(name: str, dtype: str, kernel: str) -> None:
    text, sources = texts_of(name, [37])[0], sources_of(name, 16)
    expected = opened(executor(name, kernel, dtype, threads=1), sources[:1]).extend([text])[0]
    for found in ways(executor(name, kernel, dtype), text, sources):
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
