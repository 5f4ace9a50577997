"""Rows that are copied, split, joined, cut and restored, and calls that a session refuses."""

from __future__ import annotations

import functools
import math
import threading
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from tests.executors.native.models import (
    KERNELS,
    LIBRARY,
    NATIVE,
    distance,
    every_decoder,
    every_kernel,
    executor,
    opened,
    sources_of,
    spec_of,
    telling,
    texts_of,
    torch_model,
)
from tests.sweeps import sweep
from tgen.errors import MemoryLimitError
from tgen.executors.native.tables import rotations
from tgen.executors.session import Interrupt
from tgen.executors.torch.session import TorchExecutor
from tgen.spec.cache import row_numbers
from tgen.spec.positions import RopeSpec
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import active_parameter_count, parameters

KEY_BYTES = 64 + 2 * 16 * 32  # of a head's keys in a page of an int8 cache, for up to 64 numbers: scales, and two groups


@every_decoder
def test_rows_go_their_own_ways_after_any_change_as_with_torch(name: str) -> None:
    """One history of select, truncate, split and join, on both executors."""
    histories = []
    executors: list[Any] = [executor(name), TorchExecutor(torch_model(name))]
    for of in executors:
        text, *_ = texts_of(name, [33])
        session = of.open()
        session.admit(sources_of(name, 2))
        logits = [session.extend([text, text[:18]])]
        session.select([1, 0, 1])
        logits.append(session.extend([[1], [2, 5, 6], [3]]))
        session.truncate([5, 32, 17])
        logits.append(session.extend([[4], [5, 6], [7]], [1, 2, 0]))
        apart = session.split(1)
        session.select([2, 0])
        logits.append(apart.extend([[8]]))
        session.join(apart)
        logits.append(session.extend([[9], [10], [11]]))
        histories.append(np.concatenate(logits))
    assert distance(*histories) < 1e-5


@every_decoder
def test_what_was_interrupted_has_read_nothing(name: str) -> None:
    """From the first instruction on, or by another thread at any time; then the same ids give the same bits as without."""
    [text], source = texts_of(name, [33]), sources_of(name, 1)
    session, alone = opened(executor(name), source), opened(executor(name), source)
    for one in (session, alone):
        one.extend([text[:20]])
    interrupt = Interrupt()
    interrupt.up()
    assert session.extend_unless(interrupt, [text[20:]]) is None
    wanted = alone.extend([text[20:]])
    for number in range(20):
        interrupt.down()
        timer = threading.Timer(number * 2e-5, interrupt.up)
        timer.start()
        found = session.extend_unless(interrupt, [text[20:]])
        timer.join()
        if found is not None:
            assert np.array_equal(found, wanted)
            session.truncate([20])
    interrupt.down()
    found = session.extend_unless(interrupt, [text[20:]])
    assert found is not None
    assert np.array_equal(found, wanted)
    assert np.array_equal(session.extend([[5]]), alone.extend([[5]]))


@every_decoder
def test_room_that_was_made_changes_nothing(name: str) -> None:
    """For more ids than are read, for fewer, and for none because of an interrupt."""
    [text], source = texts_of(name, [40]), sources_of(name, 1)
    session, alone = opened(executor(name), source), opened(executor(name), source)
    interrupt = Interrupt()
    for start, room in ((0, 100), (13, 1), (26, 14)):
        session.make_room(interrupt, 0, room)
        part = [text[start : start + 13]]
        assert np.array_equal(session.extend(part), alone.extend(part))
        interrupt.up()


@every_decoder
def test_a_copy_that_reads_on_leaves_the_other_row_as_it_was(name: str) -> None:
    text, source = texts_of(name, [20])[0], sources_of(name, 1)
    session, alone = opened(executor(name), source), opened(executor(name), source)
    session.extend([text])
    alone.extend([text])
    session.select([0, 0])
    session.extend([[1], [2]])
    session.select([1])
    alone.extend([[2]])
    assert np.array_equal(session.extend([[3]]), alone.extend([[3]]))


@every_kernel
@pytest.mark.parametrize("name", ["llama3", "odd_gemma", "odd_wide_heads", "odd_t5", "bloom", "gpt_oss"])
@pytest.mark.parametrize("length", [511, 1100])
def test_attention_over_several_chunks_equals_torch(name: str, kernel: str, length: int) -> None:
    """512 positions are a chunk; a decode step splits the chunks of a long row between threads, beside a short row."""
    found, expected = executor(name, kernel).open(), TorchExecutor(torch_model(name)).open()
    sources, blocks = sources_of(name, 2), texts_of(name, [length, 3])
    for session in (found, expected):
        session.admit(sources)
    assert distance(found.extend(blocks, [5, 1]), expected.extend(blocks, [5, 1])) < 1e-5
    for token in range(3):
        assert distance(found.extend([[token], [9]]), expected.extend([[token], [9]])) < 1e-5


def test_bits_of_a_long_row_do_not_depend_on_threads_or_cuts() -> None:
    text = texts_of("odd_gemma", [1030])[0]
    expected = opened(executor("odd_gemma", threads=1), [None]).extend([text])
    for threads in (1, 2, 3):
        session = opened(executor("odd_gemma", threads=threads), [None])
        session.extend([text[:509]])
        for token in text[509:515]:
            session.extend([[token]])
        session.extend([text[515:-1]])
        assert np.array_equal(session.extend([text[-1:]]), expected)


def likeliest(of: Any, name: str) -> list[int]:
    """Forty tokens."""
    session = of.open()
    session.admit(sources_of(name, 1))
    text, read = list[int](), texts_of(name, [5])[0]
    for _ in range(40):
        read = [int(session.extend([read]).argmax())]
        text += read
    return text


@functools.cache
def torchs_likeliest(name: str) -> list[int]:
    return likeliest(TorchExecutor(torch_model(name)), name)


@pytest.mark.parametrize(("name", "kernel"), sweep(product(NATIVE, KERNELS), lambda one: one[1] == KERNELS[0] and telling(one[0])))
def test_the_likeliest_text_is_that_of_torch(name: str, kernel: str) -> None:
    assert likeliest(executor(name, kernel), name) == torchs_likeliest(name)


def test_what_an_encoder_fills_in_keeps_the_order_of_the_places() -> None:
    texts, places = texts_of("odd_bert", [3, 9]), [[2, 0, 1], [8, 8, 4]]
    expected = TorchExecutor(torch_model("odd_bert")).masked_logits(texts, places)
    assert distance(executor("odd_bert").masked_logits(texts, places), expected) < 1e-5
    for bad in ([3], [-1]):
        with pytest.raises(ValueError, match="beyond the text"):
            executor("odd_bert").masked_logits(texts[:1], [bad])


@pytest.mark.parametrize(
    ("rows", "tails", "words"),
    [
        ([[1, -1]], None, "beyond the vocabulary"),
        ([[1, 288]], None, "beyond the vocabulary"),
        ([[1, 2**40]], None, "beyond the vocabulary"),
        ([[]], None, "at least one id"),
        ([[1], [2]], None, "for each of 1 rows"),
        ([[1]], [2], "a tail for each row"),
        ([[1]], [-1], "a tail for each row"),
        ([[1]], [1, 1], "a tail for each row"),
    ],
)
def test_a_refused_call_reads_nothing(rows: list[list[int]], tails: list[int] | None, words: str) -> None:
    session = opened(executor("llama3"), [None])
    session.extend([[1, 2, 3]])
    with pytest.raises(ValueError, match=words):
        session.extend(rows, tails)
    assert np.array_equal(session.extend([[4]]), opened(executor("llama3"), [None]).extend([[1, 2, 3, 4]]))


def learned(spec: ModelSpec) -> bool:
    return spec.decoder is not None and spec.decoder.positions is not None


@pytest.mark.parametrize("name", [name for name in NATIVE if learned(spec_of(name))])
def test_a_text_longer_than_the_table_of_positions_is_refused(name: str) -> None:
    decoder = spec_of(name).decoder
    assert decoder is not None and decoder.positions is not None
    most = decoder.positions.length - decoder.positions.offset
    session = opened(executor(name), sources_of(name, 1))
    session.extend([[1] * most])
    with pytest.raises(ValueError, match="table of positions"):
        session.extend([[1]])


def test_states_that_do_not_fit_are_refused() -> None:
    session = opened(executor("llama3"), [None])
    session.extend([[1, 2, 3]])
    for length in (4, 100, -1):
        with pytest.raises(ValueError, match="has read 3 ids"):
            session.state(length)
    state: dict[str, Any] = session.state(3)
    for wrong in ({}, {"pages": state["pages"][:, :-1]}, {"pages": state["pages"].astype(np.int8)}, {**state, "more": state["pages"]}):
        with pytest.raises(ValueError, match="another model"):
            executor("llama3").open().restore(3, wrong)
    with pytest.raises(ValueError, match="another model"):
        executor("llama3").open().restore(17, state)
    with pytest.raises(ValueError, match="source"):
        executor("t5").open().restore(3, state)


@every_kernel
def test_a_value_that_is_no_number_is_noticed_in_an_int8_cache(kernel: str) -> None:
    """Wherever it stands in a page: integers cannot hold NaN, so its position's scale does, and so do the logits."""
    of = executor("llama3", kernel, "int8")
    session = opened(of, [None])
    session.extend([[*range(1, 17)]])
    state = session.state(16)
    scales = KEY_BYTES + 4 * np.arange(17)  # of the values of the first head in the first layer
    for start, end in pairwise(scales.tolist()):
        pages = state["pages"].copy()
        pages[0, start:end] = np.array([np.nan], np.float32).view(np.uint8)
        other = of.open()
        other.restore(16, {"pages": pages})
        assert np.isnan(other.extend([[17]])).all()
    other.restore(16, state)
    assert np.isfinite(other.extend([[17], [17]])[1]).all()


def test_pages_left_by_a_failed_run_are_shared_with_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails after it took pages leaves none behind: copies of the row would write to the same page."""
    of = executor("llama3")
    session = opened(of, [None])
    session.extend([[1, 2, 3]])

    def fail(*_: object) -> int:
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(LIBRARY, "tgen_run", fail)
        with pytest.raises(MemoryLimitError):
            session.extend([[5] * 40])
    session.select([0, 0])
    session.extend([[7] * 30, [8] * 30])
    alone = opened(of, [None])
    alone.extend([[1, 2, 3, *[7] * 30]])
    session.select([0])
    assert np.array_equal(session.extend([[9]]), alone.extend([[9]]))


@pytest.mark.parametrize("theta", [1e-300, 1e300])
def test_a_base_of_rotations_beyond_float32_gives_no_warning(theta: float) -> None:
    """The model runs, or its logits are NaN, which whoever draws from them reports; warnings are errors here."""
    cosine, sine = rotations(RopeSpec(8, theta), 4)
    assert (cosine[0].tolist(), sine[0].tolist()) == ([1.0] * 4, [0.0] * 4) or theta < 1


def test_a_step_reads_only_the_experts_of_a_token() -> None:
    """All matrices but the table of embeddings and the experts that no token takes at once, and the cache."""
    spec = spec_of("mixtral")
    vectors = sum(math.prod(shape) for shape in parameters(spec).values() if len(shape) == 1)
    read = active_parameter_count(spec) - spec.vocab * spec.width - vectors + row_numbers(spec, 10)
    assert executor("mixtral").step_bytes(10) == 4 * read
