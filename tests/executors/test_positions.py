"""Masks, slopes and rotations, each compared with the paper that defines it."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tgen.executors.torch.positions import Distances, Frame, Rotations, alibi_slopes, relative_buckets, rope_frequencies, rotate, sinusoids
from tgen.spec.positions import Alibi, LinearScaling, Llama3Scaling, RopeSpec

CPU = torch.device("cpu")


def slopes(heads: int) -> list[float]:
    values: list[float] = alibi_slopes(heads, CPU).tolist()
    return values


def test_the_compiler_is_not_imported() -> None:
    """It takes as long to import as all the rest; only a compiled training step needs it."""
    program = "import sys, tgen.train.trainer, tgen.executors.torch.session; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_alibi_slopes() -> None:
    """arXiv:2108.12409, section 3: for 8 heads 1/2 to 1/256; other counts borrow every second slope of twice as many heads."""
    assert slopes(8) == [2.0**-i for i in range(1, 9)]
    assert slopes(1) == [2.0**-8]
    assert slopes(6) == pytest.approx(slopes(4) + slopes(8)[0:4:2])
    assert slopes(12) == pytest.approx(slopes(8) + slopes(16)[0:8:2])


def test_alibi_grows_with_distance() -> None:
    positions = torch.tensor([[0, 1, 2, 3]])
    mask = Frame(positions, positions, torch.float32, Distances(Alibi(8)), plain=True).mask(None)
    assert mask is not None
    assert mask[0, 0, 3].tolist() == [-1.5, -1.0, -0.5, 0.0]
    assert mask[0, 1, 3].tolist() == [-0.75, -0.5, -0.25, 0.0]
    assert mask[0, 0, 1].tolist() == [-0.5, 0.0, -math.inf, -math.inf]


@pytest.mark.parametrize(
    ("bidirectional", "distances", "expected"),
    [
        # Eight buckets for keys before the query: four exact, then 4 + 4 * log(d / 4) / log(16 / 4); later keys count as distance 0.
        (False, [5, 1, 0, -1, -3, -4, -5, -6, -7, -8, -10, -12, -16, -99], [0, 0, 0, 1, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7]),
        # Four for each side: two exact, then 2 + 2 * log(d / 2) / log(16 / 2); later keys have the buckets from 4 on.
        (True, [0, -1, -2, -5, -6, -99, 1, 2, 5, 6, 99], [0, 1, 2, 2, 3, 3, 5, 6, 6, 7, 7]),
    ],
)
def test_relative_buckets(bidirectional: bool, distances: list[int], expected: list[int]) -> None:
    """arXiv:1910.10683, section 2.1."""
    assert relative_buckets(torch.tensor(distances), 8, 16, bidirectional).tolist() == expected


def test_sinusoids() -> None:
    """arXiv:1706.03762, section 3.5, sines first: waves of 1 and 100 radians a position over a vector of four; of five, a third sine."""
    found = sinusoids(torch.tensor([[0, 1, 50]]), 4)[0]
    expected = [[math.sin(p), math.sin(p / 100), math.cos(p), math.cos(p / 100)] for p in (0, 1, 50)]
    torch.testing.assert_close(found, torch.tensor(expected))
    third = 10000 ** (-2 / 5)
    odd = [math.sin(1), math.sin(third), math.sin(third**2), math.cos(1), math.cos(third)]
    torch.testing.assert_close(sinusoids(torch.tensor([[1]]), 5)[0, 0], torch.tensor(odd))


def test_rotation_keeps_lengths_and_turns_the_first_pair_by_one_radian_per_position() -> None:
    rope = RopeSpec(dim=4, theta=10000.0)
    positions = torch.tensor([[0, 1, 2]])
    x = torch.tensor([1.0, 0.0, 0.0, 0.0, 7.0]).expand(1, 1, 3, 5)
    turned = rotate(x, Rotations(positions, torch.float32).of(rope))
    torch.testing.assert_close(turned[0, 0, :, 0], torch.tensor([1.0, math.cos(1), math.cos(2)]))
    torch.testing.assert_close(turned[0, 0, :, 2], torch.tensor([0.0, math.sin(1), math.sin(2)]))
    assert (turned[..., 4] == 7).all()  # beyond the rotated part
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_scores_of_rotated_vectors_depend_on_distance_alone(query: int, key: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)

    def score(query: int, key: int) -> float:
        rotations = [Rotations(p, torch.float32).of(RopeSpec(8, 10000.0)) for p in (torch.tensor([[query]]), torch.tensor([[key]]))]
        return float((rotate(q, rotations[0]) * rotate(k, rotations[1])).sum())

    assert score(query, key) == pytest.approx(score(query + shift, key + shift), abs=1e-3)


def test_linear_scaling_stretches_every_wave() -> None:
    plain, slowed = (rope_frequencies(RopeSpec(16, 10000.0, scaling), CPU) for scaling in (None, LinearScaling(4.0)))
    assert plain[0] == 1 and plain[-1] == pytest.approx(10000.0 ** (-14 / 16))
    torch.testing.assert_close(slowed, plain / 4)


def test_llama3_scaling() -> None:
    """Waves shorter than context / 4 stay, those longer than context / 1 are stretched, those between are blended."""
    plain = rope_frequencies(RopeSpec(64, 500.0), CPU)
    scaled = rope_frequencies(RopeSpec(64, 500.0, Llama3Scaling(8.0, 1.0, 4.0, 100)), CPU)
    waves = 2 * math.pi / plain
    fast, slow = waves < 100 / 4, waves > 100
    between = ~fast & ~slow
    assert fast.any() and slow.any() and between.any()
    torch.testing.assert_close(scaled[fast], plain[fast])
    torch.testing.assert_close(scaled[slow], plain[slow] / 8)
    assert ((scaled[between] < plain[between]) & (scaled[between] > plain[between] / 8)).all()
    assert (scaled.diff() < 0).all()


def visible(queries: list[int], keys: list[int], window: int | None = None) -> list[list[bool]]:
    """Which keys each query may look at."""
    mask = Frame(torch.tensor([queries]), torch.tensor([keys]), torch.float32).mask(window)
    assert mask is not None
    shown: list[list[bool]] = (mask[0, 0] == 0).tolist()
    return shown


def test_a_window_counts_the_query_itself() -> None:
    assert visible([4], [0, 1, 2, 3, 4, 5], window=2) == [[False, False, False, True, True, False]]
    assert visible([4], [0, 1, 2, 3, 4, 5], window=1) == [[False, False, False, False, True, False]]


def test_padding_is_seen_by_none_and_sees_something() -> None:
    """A row of nothing but -inf would be NaN after softmax."""
    assert visible([-1, 0, 1], [-1, 0, 1]) == [[True, True, True], [False, True, False], [False, True, True]]
    assert visible([-1, 0], [-1, 0], window=1) == [[True, True], [False, True]]


@given(st.integers(1, 8), st.integers(1, 8), st.one_of(st.none(), st.integers(1, 9)), st.booleans())
def test_shortcuts_say_what_the_mask_says(length: int, used: int, window: int | None, lone: bool) -> None:
    """If a frame says that no mask is needed, the mask that it would build agrees."""
    queries = torch.tensor([[used]]) if lone else torch.arange(length)[None]
    keys = torch.arange(used + 1)[None] if lone else queries
    short = Frame(queries, keys, torch.float32, plain=True)
    built = Frame(queries, keys, torch.float32).mask(window)
    assert built is not None
    if short.causal_only(window):
        assert torch.equal(built[0, 0] == 0, torch.ones(length, length, dtype=torch.bool).tril())
    elif short.mask(window) is None:
        assert (built == 0).all()
    else:
        assert torch.equal(short.mask(window), built)  # type: ignore[arg-type]
