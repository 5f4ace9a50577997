"""Decode steps on static buffers, run without a graph: the same logits as with the ordinary cache, whatever happens to the rows between."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import GOLDENS, config_of, golden_model, golden_reference, spec_of
from tests.sweeps import KINDS, sweep
from tgen.executors.torch.cache import Row
from tgen.executors.torch.decode import captured, static_cache
from tgen.executors.torch.decode.captured import KEPT, StaticDecoder, supports
from tgen.executors.torch.decode.static_cache import fitting
from tgen.executors.torch.session import TorchExecutor, TorchSession
from tgen.executors.torch.transformer import Transformer

SUPPORTED = [name for name in GOLDENS if supports(spec_of(config_of(name)))]
TELLING = KINDS | {"bloom", "gemma4", "minicpm3", "qwen2_window"}  # biases, shared keys, latents, windows
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capacities 4, 6, 8, 12 ..., so that short texts go through several."""
    monkeypatch.setattr(static_cache, "SMALLEST", 4)


class Pair:
    """An ordinary session and one with static buffers, which must agree."""

    def __init__(self, model: Transformer, rows: int) -> None:
        self.decoder = StaticDecoder(model, capture=False)
        self.sessions = [TorchSession(model), TorchSession(model, self.decoder)]
        for session in self.sessions:
            session.admit([None] * rows)

    def extend(self, rows: list[list[int]]) -> np.ndarray:
        expected, found = (session.extend(rows) for session in self.sessions)
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        return found

    def select(self, rows: list[int]) -> None:
        for session in self.sessions:
            session.select(rows)

    def truncate(self, lengths: list[int]) -> None:
        for session in self.sessions:
            session.truncate(lengths)


def test_which_models_are_supported() -> None:
    """Most decoders; no mixture of experts, no state, no source, and nothing without a head."""
    assert {"gpt2", "llama3", "bloom", "gemma2", "mpt", "minicpm3"} <= set(SUPPORTED)
    assert not {"mixtral", "mamba", "lfm2", "t5", "bert", "gemma3_vectors"} & set(SUPPORTED)


@pytest.mark.parametrize("name", SUPPORTED)
def test_reference(name: str) -> None:
    """The logits that transformers computed, token by token."""
    reference, session = golden_reference(name), Pair(golden_model(name), 1)
    found = np.concatenate([session.extend([[token]]) for token in reference["ids"].tolist()])
    assert np.abs(found - reference["logits"]).max() < TOLERANCE * np.abs(reference["logits"]).max()


@pytest.mark.parametrize("name", sweep(SUPPORTED, TELLING.__contains__))
def test_rows_unlike(name: str) -> None:
    """Rows of unlike lengths, of which one leaves, one is doubled, and some are cut back and read on in blocks."""
    pair = Pair(golden_model(name), 3)
    pair.extend([[9, 10, 11], [12], [13, 14, 15, 16, 17]])
    for token in range(20, 23):
        pair.extend([[token], [token + 1], [token + 2]])
    pair.select([2, 0])
    pair.extend([[9], [10]])
    pair.select([1, 0, 1])
    pair.extend([[9], [10], [11]])
    pair.truncate([4, 5, 2])
    pair.extend([[9], [10], [11]])
    pair.extend([[9, 12], [10], [11, 13, 14]])
    pair.extend([[9], [10], [11]])


def test_a_row_that_leaves_keeps_its_keys() -> None:
    """Another session's rows take the slots of a row that was split off; it goes on later as if nothing had happened."""
    pair = Pair(golden_model("llama3"), 2)
    for token in range(9, 12):
        pair.extend([[token], [token + 1]])
    kept = [session.split(0) for session in pair.sessions]
    pair.select([1])
    for session in pair.sessions:
        session.admit([None])
    pair.extend([[9], [10]])
    for session, other in zip(pair.sessions, kept, strict=True):
        session.join(other)
    pair.extend([[9], [10], [11]])


def test_no_infinity_stays_behind() -> None:
    """A row's numbers do not reach the next row in its slot, not even those that the mask would turn into NaN."""
    model = golden_model("llama3")
    pair = Pair(model, 1)
    pair.extend([[9]])
    with torch.inference_mode():
        pair.sessions[1]._rows[0].key_values(0).buffer.fill_(torch.inf)
    pair.select([])
    for session in pair.sessions:
        session.admit([None])
    pair.extend([[9]])


def test_memory_grows_with_the_longest_row() -> None:
    """Buffers are those of the next capacity, steps that were not used for longest are dropped, and with the rows goes the rest."""
    pair = Pair(golden_model("llama3"), 1)
    capacities = []
    for token in range(9, 26):
        pair.extend([[token]])
        capacities.append(pair.sessions[1]._rows[0].key_values(0).buffer.shape[2])
    assert capacities == [4] * 4 + [6] * 2 + [8] * 2 + [12] * 4 + [16] * 4 + [24]
    assert len(pair.decoder._steps) == KEPT
    owners = [owner for step in pair.decoder._steps.values() for owner in step.cache._owners]
    pair.select([])
    gc.collect()
    assert not [owner for owner in owners if owner is not None and isinstance(owner(), Row)]


def test_row_bytes_are_those_of_the_capacity() -> None:
    """The scheduler admits rows by the buffers that they will take."""
    executor = TorchExecutor(golden_model("llama3"))
    token = executor.row_bytes(1)
    executor._decoder = StaticDecoder(executor.model, capture=False)
    assert [executor.row_bytes(length) // token for length in (1, 5, 9)] == [4, 6, 12]
    assert executor.describe().endswith("decode steps as graphs")


def test_out_of_memory_drops_other_steps_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that has no room gets that of the steps before it; only one that has none even then is left to the ordinary pass."""
    model = golden_model("llama3")
    decoder = StaticDecoder(model, capture=False)
    session = TorchSession(model, decoder)
    session.admit([None])
    for token in range(9, 14):
        session.extend([[token]])
    assert len(decoder._steps) == 2
    decoder._capture, left = True, [torch.OutOfMemoryError()]
    made = captured._Step.__init__

    def cramped(self: captured._Step, *args: Any, **_: Any) -> None:
        if left:
            raise left.pop()
        made(self, *args, capture=False)

    monkeypatch.setattr(captured._Step, "__init__", cramped)
    session.extend([[9, 10, 11]])
    session.extend([[9]])
    assert len(decoder._steps) == 1
    assert not decoder.failed


def test_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    lengths = [1, 256, 257, 384, 385, 512, 513, 768, 769, 3000, 4096]
    assert [fitting(length) for length in lengths] == [256, 256, 384, 384, 512, 512, 768, 768, 1024, 3072, 4096]


@pytest.mark.skipif(torch.cuda.is_available(), reason="recording works here")
def test_one_note_where_a_step_cannot_be_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """The rows go on with the ordinary pass."""
    model = golden_model("llama3")
    plain, session = TorchSession(model), TorchSession(model, StaticDecoder(model, capture=True))
    for one in (plain, session):
        one.admit([None])
    for token in range(9, 12):
        np.testing.assert_array_equal(session.extend([[token]]), plain.extend([[token]]))
    assert capsys.readouterr().err.count("note: decode steps run without a recorded graph") == 1
