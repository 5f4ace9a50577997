"""The torch session: what is read at once, in steps, in batches, or after a detour gives the same logits as reading it all anew."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.conftest import golden_model
from tests.engine.scripted import VOCAB, Played, byte_tokenizer
from tgen.engine.generator import Generator
from tgen.executors.open import sessions
from tgen.executors.torch.session import TorchSession
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CONFIGS = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 7},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}
PROMPTS = ["a", "the cat", "A longer one, longer than any window of attention here."]

every_family = pytest.mark.parametrize("family", CONFIGS)


@functools.cache
def model(family: str) -> Transformer:
    """A model whose every number is random; biases and embeddings are small, or it would say one token again and again."""
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
    """Greedy generation as slow as can be."""
    read = list(prompt)
    for _ in range(count):
        read.append(int(full(family, read).argmax()))
    return read[len(prompt) :]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@every_family
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_generation(family: str, prompt: str) -> None:
    generator = Generator(sessions(model(family)), byte_tokenizer(), context=128)
    played = Played(list(generator.stream(prompt, temperature=0, max_new_tokens=30, logprobs=0)))
    expected = oracle(family, prompt.encode(), 30)
    assert len(set(expected)) > 3, "something happens"
    assert [token.score.id for token in played.tokens()] == expected


@every_family
def test_to_the_end_of_the_context(family: str) -> None:
    generator = Generator(sessions(model(family)), byte_tokenizer(), context=128)
    played = Played(list(generator.stream("x" * 120, temperature=0, logprobs=0)))
    assert [token.score.id for token in played.tokens()] == oracle(family, b"x" * 120, 8)


@every_family
def test_ragged_rows(family: str) -> None:
    """Rows of unlike lengths, read in blocks of unlike lengths."""
    blocks = [[ids(3, 1), ids(9, 2), ids(1, 3)], [ids(1, 4), ids(1, 5), ids(1, 6)], [ids(4, 7), ids(1, 8), ids(2, 9)]]
    session = TorchSession(model(family), 16)
    read: list[list[int]] = [[], [], []]
    for block in blocks:
        read = [old + new for old, new in zip(read, block, strict=True)]
        logits = session.extend(block)
        assert (logits.shape, logits.dtype.name) == ((3, VOCAB), "float32")
        assert_close(logits, np.stack([full(family, row) for row in read]))


@every_family
@pytest.mark.parametrize("rows", [[0, 0, 0], [2, 0], [1], [2, 1, 0, 1]])
def test_select(family: str, rows: list[int]) -> None:
    session, read = TorchSession(model(family), 16), [ids(3, 1), ids(9, 2), ids(5, 3)]
    session.extend(read)
    session.select(rows)
    more = [ids(2, 10 + place) for place in range(len(rows))]
    assert_close(session.extend(more), np.stack([full(family, read[row] + new) for row, new in zip(rows, more, strict=True)]))


@every_family
@pytest.mark.parametrize("lengths", [[4, 4], [9, 2], [0, 9], [9, 9], [1, 0]])
def test_truncate(family: str, lengths: list[int]) -> None:
    session, read = TorchSession(model(family), 16), [ids(9, 1), ids(9, 2)]
    session.extend(read)
    session.truncate(lengths)
    left = [row[:length] for row, length in zip(read, lengths, strict=True)]
    for length in (1, 3, 1):
        more = [ids(length, 3), ids(length, 4)]
        left = [old + new for old, new in zip(left, more, strict=True)]
        assert_close(session.extend(more), np.stack([full(family, row) for row in left]))


@every_family
def test_growth_beyond_the_first_capacity(family: str) -> None:
    session, read = TorchSession(model(family), 2), ids(60)
    session.extend([read[:1]])
    for place in range(1, 40):
        logits = session.extend([read[place : place + 1]])
    assert_close(logits[0], full(family, read[:40]))
    assert_close(session.extend([read[40:]])[0], full(family, read))


def test_a_step_copies_no_cache() -> None:
    """Within the capacity the buffers stay where they are; beyond it they are copied once in a while, not each time."""

    def places() -> list[int]:
        assert session._cache is not None
        return [buffer.data_ptr() for layer in session._cache.layers for buffer in (layer.k, layer.v)]

    session = TorchSession(model("llama"), 64)
    session.extend([ids(20), ids(30)])
    before = places()
    for _ in range(34):
        session.extend([[1], [2]])
        session.select([0, 1])
        assert places() == before
    moves = 0
    for _ in range(63):
        session.extend([[1], [2]])
        moves, before = moves + (places() != before), places()
    assert moves == 1


def test_samples_do_not_disturb_one_another() -> None:
    """What a sample is, drawn along with others that end before and after it, it is alone."""
    generator = Generator(sessions(model("llama")), byte_tokenizer(), context=128, end_tokens=frozenset(range(0, VOCAB, 20)))
    together = Played(list(generator.stream("the cat", seed=1, samples=6, max_new_tokens=40, logprobs=0)))
    assert len({event.token_count for event in together.finished.values()}) > 2
    alone = Played(list(generator.stream("the cat", seed=1, max_new_tokens=40, logprobs=0)))
    assert [token.score.id for token in alone.tokens()] == [token.score.id for token in together.tokens()]


@pytest.mark.parametrize("rows", [[[1]], [[1], [2], [3]], [[1], []], []])
def test_wrong_rows_are_refused(rows: list[list[int]]) -> None:
    session = TorchSession(model("llama"), 8)
    session.extend([[1], [2]])
    with pytest.raises(ValueError, match="at least one id for each of 2 rows"):
        session.extend(rows)


def test_nothing_read_is_nothing_to_select_or_truncate() -> None:
    session = TorchSession(model("llama"), 8)
    session.select([0])
    session.truncate([0])
    assert_close(session.extend([[1, 2]])[0], full("llama", [1, 2]))


@every_family
def test_rows_that_join_at_random(family: str) -> None:
    """A long life of a batch: rows join in free places or as new ones, some read several ids at once, some leave, all keep their logits."""
    choose = np.random.default_rng(len(family))
    session, read = TorchSession(model(family), 16), [ids(5, 1), ids(2, 2)]
    session.extend(read)
    for turn in range(12):
        joining = [ids(int(choose.integers(1, 14)), 100 + 10 * turn + row) for row in range(int(choose.integers(1, 3)))]
        other = TorchSession(model(family), 4)
        other.extend(joining)
        other.extend([[token] for token in range(len(joining))])
        joining = [[*row, token] for token, row in enumerate(joining)]
        most = len(read) + len(joining)
        places = [int(place) for place in choose.permutation(most)[: len(joining)] if place <= len(read)]
        places = sorted(set(places)) or [0]
        places = [place if place < len(read) else len(read) for place in places]
        joining = joining[: len(places)]
        session.admit(other, range(len(places)), places)
        for place, row in zip(places, joining, strict=True):
            read = [*read[:place], row, *read[place + 1 :]]
        for _ in range(int(choose.integers(1, 5))):
            blocks = [ids(1, int(choose.integers(1000))) for _ in read]
            read = [old + new for old, new in zip(read, blocks, strict=True)]
            logits = session.extend(blocks)
        assert_close(logits, np.stack([full(family, row) for row in read]))
        if len(read) > 3:
            kept = sorted(int(row) for row in choose.permutation(len(read))[:3])
            session.select(kept)
            read = [read[row] for row in kept]


@pytest.mark.parametrize("name", ["marian", "t5", "bart"])
def test_answers_that_join_have_their_own_source(name: str) -> None:
    made = golden_model(name)
    sources = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]

    def alone(source: list[int], steps: int) -> np.ndarray:
        session = TorchSession(made, 8, [source])
        read = [session.extend([[token]])[0] for token in range(1, steps + 1)]
        last: np.ndarray = read[-1]
        return last

    session = TorchSession(made, 8, sources[:2])
    session.extend([[1], [1]])
    joining = TorchSession(made, 8, sources[2:])
    joining.extend([[1]])
    session.admit(joining, [0], [0])
    logits = session.extend([[2], [2]])
    assert_close(logits, np.stack([alone(sources[2], 2), alone(sources[1], 2)]))
    longer = TorchSession(made, 8, sources[:1])
    longer.extend([[1]])
    longer.extend([[2]])
    session.admit(longer, [0], [2])
    logits = session.extend([[3], [3], [3]])
    assert_close(logits, np.stack([alone(source, 3) for source in (sources[2], sources[1], sources[0])]))


def test_a_long_batch_does_not_grow() -> None:
    """Slots that only rows long gone have used are used again."""
    session = TorchSession(model("llama"), 32)
    session.extend([ids(4, 1), ids(4, 2)])
    for turn in range(60):
        other = TorchSession(model("llama"), 8)
        other.extend([ids(4, turn)])
        session.admit(other, [0], [turn % 2])
        for _ in range(5):
            session.extend([[1], [2]])
    assert session._cache is not None
    assert session._cache.capacity <= 64
