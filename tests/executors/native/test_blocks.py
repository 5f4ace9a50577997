"""Matrices that a GGUF file stores in blocks: integers with a scale for each group stay as they are, others are rounded to 8 bits."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.checkpoint.gguf_files import write_gguf
from tests.checkpoint.quantised import floats
from tests.executors.native.models import LIBRARY
from tests.executors.native.test_packing import unpacked
from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.gguf.blocks import GROUPED, group_scales, group_words
from tgen.checkpoint.mapped import MappedFiles, read_parameter
from tgen.executors.native import interface as c
from tgen.executors.native.forecast import forecast
from tgen.executors.native.open import open_executor
from tgen.options import RunOptions

assert LIBRARY is not None
ROUNDED = ("Q4_1", "Q5_1")


@pytest.mark.parametrize("kind", GROUPED)
def test_integers_and_scales_are_those_of_the_blocks(kind: str) -> None:
    """Whatever the bytes are, the gguf package and this code read the same numbers from them."""
    random, size = np.random.default_rng(1), gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks = random.integers(0, 256, (5, 3, size), dtype=np.uint8)
    blocks[..., :2] = random.uniform(-1, 1, (5, 3, 1)).astype(np.float16).view(np.uint8)
    if kind == "MXFP4":
        blocks[..., 0] = random.integers(100, 140, (5, 3))
    rows = blocks.reshape(5, -1)
    words, scales, bits = group_words(rows, kind), group_scales(rows, kind), GROUPED[kind]
    numbers = (words[..., None] >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32(2**bits - 1)).reshape(5, -1).astype(np.float32)
    expected = gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal((numbers - 2 ** (bits - 1)) * np.repeat(scales, 32, axis=1), expected)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_0", *ROUNDED])
def test_a_file_of_blocks_runs_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(floats("untied"), path, kind)
    checkpoint = open_checkpoint(path)
    assert checkpoint.is_quantised
    weights, files = open_executor(checkpoint, RunOptions(threads=1)).model.weights, MappedFiles()
    names = [name.removesuffix(".weight") for name, match in checkpoint.matches.parameters.items() if match.tensor.is_narrow]
    assert {"embedding", "head.out"} <= set(names)
    for name in names:
        found, (stored, _) = (
            unpacked(weights.matrix(name)),
            read_parameter(f"{name}.weight", checkpoint.matches.parameters[f"{name}.weight"], files),
        )
        if kind in ROUNDED:
            largest = np.abs(stored).reshape(len(stored), -1, 32).max(axis=-1, keepdims=True)
            assert (np.abs(found - stored).reshape(len(stored), -1, 32) <= 1.01 * largest / 254).all(), name
        else:
            np.testing.assert_array_equal(found, stored, name)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "F16"])
def test_info_says_what_the_weights_take(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(floats("untied"), path, kind)
    checkpoint = open_checkpoint(path)
    weights = open_executor(checkpoint, RunOptions(threads=1)).model.weights
    parameters = checkpoint.matches.parameters
    matrices = [weights.matrix(name.removesuffix(".weight")).data for name, match in parameters.items() if len(match.tensor.shape) > 1]
    vectors = [weights.vector(name) for name, match in parameters.items() if len(match.tensor.shape) == 1]
    assert forecast(checkpoint, RunOptions()).weight_bytes == sum(array.nbytes for array in [*matrices, *vectors] if array is not None)


def test_blocks_take_eight_and_a_half_bits(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(floats("untied"), path, "Q4_1")
    weights = open_executor(open_checkpoint(path), RunOptions(threads=1)).model.weights
    matrix = weights.matrix("decoder.layers.0.mixer.q")
    assert matrix.format == c.INT8 and matrix.data.nbytes * 8 == 8.5 * matrix.rows * matrix.columns
