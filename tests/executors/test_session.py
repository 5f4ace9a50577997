"""The torch session: ids read at once, in steps, in batches, or after a truncation give the same logits as reading all of them anew."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import golden_model
from tests.engine.scripted import VOCAB, Played, byte_tokenizer
from tgen.engine.generator import Generator
from tgen.errors import MemoryLimitError
from tgen.executors.torch.cache import BLOCK, KeyValues
from tgen.executors.torch.session import TorchExecutor, TorchSession
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family

LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 7},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "lfm2": {**LLAMA, "layer_types": ["conv", "full_attention"]},
    "mamba2": {"hidden_size": 16, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 2},
}
PROMPTS = ["a", "the cat", "A longer one, longer than any window of attention here."]

every_family = pytest.mark.parametrize("family", CONFIGS)


@functools.cache
def model(family: str) -> Transformer:
    """A model whose every number is random; biases and embeddings are small, because otherwise the model would repeat one token."""
    torch.set_num_threads(1)
    config = {"model_type": family, "vocab_size": VOCAB, **CONFIGS[family]}
    made = Transformer(find_family(family).spec(Config(config))).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            parameter.normal_(0, 0.03 if name == "embedding.weight" or name.endswith("bias") else 0.5, generator=random)
    return made


def ids(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCAB, length)]


@torch.no_grad()
def full(family: str, read: Sequence[int]) -> np.ndarray:
    """The logits after all of these, without a cache."""
    made = model(family)
    logits: np.ndarray = made.logits(made(torch.tensor([list(read)])))[0, -1].numpy()
    return logits


def oracle(family: str, prompt: Sequence[int], count: int) -> list[int]:
    """A slow reference for greedy generation."""
    read = list(prompt)
    for _ in range(count):
        read.append(int(full(family, read).argmax()))
    return read[len(prompt) :]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def opened(made: Transformer, rows: int) -> TorchSession:
    session = TorchSession(made)
    session.admit([None] * rows)
    return session


@every_family
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_generation(family: str, prompt: str) -> None:
    generator = Generator(TorchExecutor(model(family)), byte_tokenizer(), context=128)
    played = Played(list(generator.stream(prompt, temperature=0, max_new_tokens=30, logprobs=0)))
    expected = oracle(family, prompt.encode(), 30)
    assert len(set(expected)) > 3, "something happens"
    assert [token.score.id for token in played.tokens()] == expected


@every_family
def test_to_the_end_of_the_context(family: str) -> None:
    generator = Generator(TorchExecutor(model(family)), byte_tokenizer(), context=128)
    played = Played(list(generator.stream("x" * 120, temperature=0, logprobs=0)))
    assert [token.score.id for token in played.tokens()] == oracle(family, b"x" * 120, 8)


@every_family
def test_ragged_rows(family: str) -> None:
    """Rows of unlike lengths, read in blocks of unlike lengths."""
    blocks = [[ids(3, 1), ids(9, 2), ids(1, 3)], [ids(1, 4), ids(1, 5), ids(1, 6)], [ids(4, 7), ids(1, 8), ids(2, 9)]]
    session = opened(model(family), 3)
    read: list[list[int]] = [[], [], []]
    for block in blocks:
        read = [old + new for old, new in zip(read, block, strict=True)]
        logits = session.extend(block)
        assert (logits.shape, logits.dtype.name) == ((3, VOCAB), "float32")
        assert_close(logits, np.stack([full(family, row) for row in read]))


@every_family
@pytest.mark.parametrize("tails", [[3, 1, 2], [0, 9, 0], [1, 1, 1], [0, 0, 0], [3, 9, 5]])
def test_tails(family: str, tails: list[int]) -> None:
    """Logits of as many last positions of each row as asked for, while all rows read all ids."""
    before, block = [ids(2, 1), ids(1, 2), ids(4, 3)], [ids(3, 4), ids(9, 5), ids(5, 6)]
    session = opened(model(family), 3)
    session.extend(before)
    read = [old + new for old, new in zip(before, block, strict=True)]
    logits = session.extend(block, tails)
    expected = [full(family, row[: len(row) - back]) for row, tail in zip(read, tails, strict=True) for back in reversed(range(tail))]
    assert (logits.shape, logits.dtype.name) == ((sum(tails), VOCAB), "float32")
    if expected:
        assert_close(logits, np.stack(expected))
    assert_close(session.extend([[1], [2], [3]]), np.stack([full(family, [*row, n]) for n, row in enumerate(read, 1)]))


@pytest.mark.parametrize("tails", [[1], [1, 1, 1], [4, 1], [-1, 1]])
def test_tails_that_do_not_fit(tails: list[int]) -> None:
    session = opened(model("llama"), 2)
    with pytest.raises(ValueError, match="a tail for each row"):
        session.extend([ids(3), ids(3)], tails)


@every_family
@pytest.mark.parametrize("rows", [[0, 0, 0], [2, 0], [1], [2, 1, 0, 1]])
def test_select(family: str, rows: list[int]) -> None:
    session, read = opened(model(family), 3), [ids(3, 1), ids(9, 2), ids(5, 3)]
    session.extend(read)
    session.select(rows)
    more = [ids(2, 10 + place) for place in range(len(rows))]
    assert_close(session.extend(more), np.stack([full(family, read[row] + new) for row, new in zip(rows, more, strict=True)]))


@every_family
@pytest.mark.parametrize("lengths", [[4, 4], [9, 2], [0, 9], [9, 9], [1, 0]])
def test_truncate(family: str, lengths: list[int]) -> None:
    session, read = opened(model(family), 2), [ids(9, 1), ids(9, 2)]
    session.extend(read)
    session.truncate(lengths)
    left = [row[:length] for row, length in zip(read, lengths, strict=True)]
    for length in (1, 3, 1):
        more = [ids(length, 3), ids(length, 4)]
        left = [old + new for old, new in zip(left, more, strict=True)]
        assert_close(session.extend(more), np.stack([full(family, row) for row in left]))


@every_family
def test_many_steps(family: str) -> None:
    session, read = opened(model(family), 1), ids(60)
    session.extend([read[:1]])
    for place in range(1, 40):
        logits = session.extend([read[place : place + 1]])
    assert_close(logits[0], full(family, read[:40]))
    assert_close(session.extend([read[40:]])[0], full(family, read))


def buffers(session: TorchSession) -> list[int]:
    return [layer.buffer.data_ptr() for row in session._rows for layer in row.layers if isinstance(layer, KeyValues)]


def test_a_step_copies_no_cache() -> None:
    """Within a row's capacity its buffers stay where they are; beyond it they are copied once in a while, not each time."""
    session = opened(model("llama"), 2)
    session.extend([ids(20), ids(30)])
    moves, before = 0, buffers(session)
    for _ in range(90):
        session.extend([[1], [2]])
        session.select([0, 1])
        after = buffers(session)
        moves, before = moves + sum(a != b for a, b in zip(after, before, strict=True)) // 2, after
    assert moves <= 12
    session.select([1, 0])
    assert sorted(buffers(session)) == sorted(before), "a change of order moves nothing"


def test_a_row_costs_memory_for_its_own_length() -> None:
    """One row of 900 ids beside fifteen of 10: buffers take at most 1.5 times the bytes in use, which `row_bytes` predicts."""
    executor = TorchExecutor(model("llama"))
    session = executor.open()
    session.admit([None] * 16)
    session.extend([ids(900), *[ids(10, seed) for seed in range(15)]])
    used = executor.row_bytes(900) + 15 * executor.row_bytes(10)
    assert used == (900 + 150) * 2 * 2 * 2 * 8 * 4  # ids, layers, key and value, heads, numbers a head, bytes a number
    assert used <= session.cache_bytes <= 1.5 * used
    for turn in range(100):
        session.extend([[turn]] * 16)
        used = executor.row_bytes(901 + turn) + 15 * executor.row_bytes(11 + turn)
        assert session.cache_bytes <= 1.5 * used
    session.select(range(1, 16))
    assert session.cache_bytes <= 1.5 * 15 * executor.row_bytes(110), "a row that leaves takes its memory with it"


def test_sources_count_once() -> None:
    made = golden_model("marian")
    executor = TorchExecutor(made)
    session = executor.open()
    session.admit([[5, 6, 7, 8]])
    session.extend([[1]])
    session.select([0, 0, 0, 0])
    source = executor.row_bytes(0, 4)
    assert source > 0
    assert session.cache_bytes - source == 4 * BLOCK * executor.row_bytes(1)


def test_samples_do_not_disturb_one_another() -> None:
    """A sample is the same alone as beside others that end before and after it."""
    generator = Generator(TorchExecutor(model("llama")), byte_tokenizer(), context=128, end_tokens=frozenset(range(0, VOCAB, 20)))
    together = Played(list(generator.stream("the cat", seed=1, samples=6, max_new_tokens=40, logprobs=0)))
    assert len({event.token_count for event in together.finished.values()}) > 2
    alone = Played(list(generator.stream("the cat", seed=1, max_new_tokens=40, logprobs=0)))
    assert [token.score.id for token in alone.tokens()] == [token.score.id for token in together.tokens()]


@pytest.mark.parametrize("rows", [[[1]], [[1], [2], [3]], [[1], []], []])
def test_wrong_rows_are_refused(rows: list[list[int]]) -> None:
    session = opened(model("llama"), 2)
    session.extend([[1], [2]])
    with pytest.raises(ValueError, match="at least one id for each of 2 rows"):
        session.extend(rows)


def test_a_pass_that_fails_has_not_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    session, made = opened(model("llama"), 2), model("llama")
    session.extend([ids(5, 1), ids(9, 2)])
    with monkeypatch.context() as patch:
        patch.setattr(made, "logits", lambda _: torch.empty(2**60))
        with pytest.raises(MemoryLimitError):
            session.extend([ids(3, 3), ids(30, 4)])
    logits = session.extend([[7], [8]])
    assert_close(logits, np.stack([full("llama", [*ids(5, 1), 7]), full("llama", [*ids(9, 2), 8])]))


@every_family
def test_rows_that_join_at_random(family: str) -> None:
    """Over many steps rows join, some read several ids at once, some leave or are repeated, and all keep their logits."""
    choose = np.random.default_rng(len(family))
    session, read = opened(model(family), 2), [ids(5, 1), ids(2, 2)]
    session.extend(read)
    for turn in range(12):
        joining = [ids(int(choose.integers(1, 14)), 100 + 10 * turn + row) for row in range(int(choose.integers(1, 3)))]
        other = opened(model(family), len(joining))
        other.extend(joining)
        session.join(other)
        assert other._rows == []
        read += joining
        for _ in range(int(choose.integers(1, 5))):
            blocks = [ids(int(choose.choice([1, 1, 4])), int(choose.integers(1000))) for _ in read]
            read = [old + new for old, new in zip(read, blocks, strict=True)]
            logits = session.extend(blocks)
        assert_close(logits, np.stack([full(family, row) for row in read]))
        if len(read) > 3:
            kept = [int(row) for row in choose.integers(0, len(read), 3)]
            session.select(kept)
            read = [read[row] for row in kept]


@every_family
def test_split(family: str) -> None:
    session, read = opened(model(family), 2), [ids(5, 1), ids(9, 2)]
    session.extend(read)
    other = session.split(1)
    session.select([0])
    assert_close(other.extend([[3]]), full(family, [*read[1], 3])[None])
    assert_close(session.extend([[4]]), full(family, [*read[0], 4])[None])


@pytest.mark.parametrize("name", ["marian", "t5", "bart"])
def test_rows_have_their_own_source(name: str) -> None:
    made = golden_model(name)
    sources = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]

    def alone(source: list[int], steps: int) -> np.ndarray:
        session = TorchSession(made)
        session.admit([source])
        read = [session.extend([[token]])[0] for token in range(1, steps + 1)]
        last: np.ndarray = read[-1]
        return last

    session = TorchSession(made)
    session.admit(sources[:2])
    session.extend([[1], [1]])
    session.admit(sources[2:])
    session.select([1, 1, 0, 2])
    logits = session.extend([[2], [2], [2], [1]])
    assert_close(logits, np.stack([alone(sources[1], 2), alone(sources[1], 2), alone(sources[0], 2), alone(sources[2], 1)]))
    with pytest.raises(ValueError, match="at least one id"):
        session.admit([[]])
    with pytest.raises(ValueError, match="a source if and only if the model has an encoder"):
        session.admit([None])


def test_a_state_is_cut_back_to_what_it_kept() -> None:
    """After a long step: its start, marks, and nothing. After a short one: every place within it. Copies do not change one another."""
    session, read = opened(model("mamba2"), 1), ids(120, 1)
    session.extend([read[:40]])
    session.mark(0)
    session.extend([read[40:100]])
    session.mark(0)
    for place in range(100, 104):
        session.extend([read[place : place + 1]])
    session.extend([read[104:112]])
    assert [session.reachable(0, length) for length in (39, 40, 99, 100, 103, 104, 107, 112)] == [0, 40, 40, 100, 100, 104, 107, 112]
    with pytest.raises(ValueError, match="cannot be cut back to 103"):
        session.truncate([103])
    session.select([0, 0, 0])
    session.truncate([107, 100, 40])
    for more in (ids(1, 2), ids(9, 3)):
        expected = [full("mamba2", [*read[:length], *more]) for length in (107, 100, 40)]
        assert_close(session.extend([more] * 3), np.stack(expected))
        session.truncate([107, 100, 40])


def test_a_state_can_be_stored() -> None:
    session, read = opened(model("lfm2"), 1), ids(50, 1)
    session.extend([read])
    session.mark(0)
    session.extend([[1]])
    other = TorchSession(model("lfm2"))
    other.restore(50, session.state(50))
    assert_close(other.extend([[2]]), full("lfm2", [*read, 2])[None])
    with pytest.raises(ValueError, match="another model"):
        other.restore(49, session.state(50))


@pytest.mark.parametrize("guess", [False, True])
def test_a_state_in_the_engine(guess: bool) -> None:
    """Guesses, stop strings and a second prompt that begins like the first leave the text as it is without a cache."""
    made = model("mamba2")
    generator = Generator(TorchExecutor(made), byte_tokenizer(), context=400, guess=guess)
    prompt = "abcabcabc the cat " * 4
    for text in (prompt, prompt + "and", prompt[:50] + "the"):
        played = Played(list(generator.stream(text, temperature=0, max_new_tokens=20, logprobs=0)))
        assert [token.score.id for token in played.tokens()] == oracle("mamba2", text.encode(), 20)
