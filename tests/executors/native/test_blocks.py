"""Matrices that a GGUF file stores in blocks stay as they are, and vectors are rounded as llama.cpp rounds them."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tests.checkpoint.gguf_files import write_gguf
from tests.checkpoint.quantised import floats, random_folder
from tests.executors.native.models import LIBRARY, every_kernel
from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.gguf.blocks import GROUPED, group_scales, group_words
from tgen.checkpoint.gguf.parts import TYPES, parts_of
from tgen.executors.native import interface as c
from tgen.executors.native.forecast import forecast
from tgen.executors.native.library import kernels
from tgen.executors.native.model import Cache
from tgen.executors.native.open import open_executor
from tgen.executors.native.packing import GGML_FORMATS
from tgen.executors.native.panels import BITS, block_panels, matrix_bytes, panels
from tgen.executors.native.weights import Weights, address
from tgen.options import RunOptions

assert LIBRARY is not None
ZEROS = {"Q3_K": 4, "Q6_K": 32, "IQ4_XS": 128}  # what integers of a type without minima are too large by
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,)}


def blocks(kind: str, rows: int, count: int) -> np.ndarray:
    """Random blocks [rows, bytes] of a type, whose numbers in float16 are sensible."""
    random, size = np.random.default_rng(1), gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    found = random.integers(0, 256, (rows, count, size), dtype=np.uint8)
    for place in HALVES.get(kind, (0,)):
        found[..., place : place + 2] = random.uniform(-1, 1, (rows, count, 1)).astype(np.float16).view(np.uint8)
    return found.reshape(rows, -1)


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


@pytest.mark.parametrize("kind", TYPES)
def test_parts_are_those_of_the_blocks(kind: str) -> None:
    rows = blocks(kind, 5, 3)
    parts, expected = parts_of(rows, kind), gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])
    scales, least = parts.factors.astype(np.float32), np.float32(0) if parts.least is None else parts.least.astype(np.float32)
    if parts.scales is not None:
        each = parts.scales.shape[1] // scales.shape[1]
        scales = np.repeat(scales, each, axis=1) * parts.scales
        least = -np.repeat(least, each, axis=1) * parts.minima if parts.minima is not None else np.zeros_like(scales)
    width = expected.shape[1] // scales.shape[1]
    found = (parts.integers.astype(np.float32) - ZEROS.get(kind, 0)) * np.repeat(scales, width, axis=1) + np.repeat(least, width, axis=1)
    np.testing.assert_array_equal(found, expected)


def rounded(vectors: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Vectors as llama.cpp rounds them to integers and scales, for one type of matrix; and for Q8_1 the rounded sums of 32 numbers."""
    width = 256 if kind.endswith("_K") or kind == "IQ4_XS" else 32
    groups = vectors.reshape(len(vectors), -1, width)
    if width == 256:
        extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)
        inverse = np.float32(-127) / extreme
        return (np.rint(groups * inverse).astype(np.float64) / inverse).reshape(vectors.shape), None
    top = np.abs(groups).max(axis=-1, keepdims=True)
    integers, scale = np.rint(groups * (np.float32(127) / top)).astype(np.float64), top / np.float32(127)
    sums = (scale * integers.sum(axis=-1, keepdims=True)).astype(np.float16).astype(np.float64)
    return (integers * scale.astype(np.float16)).reshape(vectors.shape), sums[..., 0] if kind in ("Q4_1", "Q5_1") else None


def product(number_format: int, memory: np.ndarray, shape: tuple[int, int], vectors: np.ndarray, kernel: str) -> np.ndarray:
    """The library's product of a matrix with vectors [tokens, columns]."""
    library: Any = LIBRARY
    handle = library.tgen_model_new(1)
    matrix = (c.Matrix * 1)(c.Matrix(number_format, *shape, address(memory), None))
    library.tgen_model_set(handle, (ctypes.c_int32 * 8)(shape[1]), matrix, (c.Norm * 1)(), (c.Rope * 1)(), (c.Distances * 1)())
    code = (c.Instruction * 3)()
    for one, kind in zip(code, (c.EMBED, c.JOIN, c.MULTIPLY), strict=True):
        one.kind, one.scale, one.formats, one.before, one.after, one.into = kind, 1.0, 1 << number_format, -1, -1, -1
        one.matrices[:] = [0 if kind == c.MULTIPLY else -1, -1, -1]
    code[2].source, code[2].target = c.HIDDEN, c.LOGITS
    row = Cache(library, [(1, 16)], c.FLOAT32).new_row()
    count, stride = len(vectors), -(-shape[0] // 16) * 16
    result = np.empty((count, stride), np.float32)
    batch = c.Batch(rows=1, tokens=count, chosen=count, result_stride=stride, result=result.ctypes.data, vectors=vectors.ctypes.data)
    batch.row, batch.start = (ctypes.c_void_p * 1)(row.address), (ctypes.c_int32 * 2)(0, count)
    batch.token_row = (ctypes.c_int32 * count)()
    assert library.tgen_row_reserve(row.address, count) == 0
    assert library.tgen_run(handle, kernels(library)[kernel], c.Program(code, 3), batch) == 0
    library.tgen_model_free(handle)
    return result[:, : shape[0]]


def matrix_of(kind: str, rows: np.ndarray, columns: int) -> tuple[int, np.ndarray]:
    """The format and the panels of a matrix in blocks, at an address that is a multiple of 64."""
    number_format = GGML_FORMATS[f"Q{GROUPED[kind]}_0" if kind in GROUPED else kind]
    if number_format in BITS:
        found = panels(group_words(rows, kind), group_scales(rows, kind).astype(np.float16), BITS[number_format]).view(np.uint8)
    else:
        found = block_panels(parts_of(rows, kind), number_format)
    assert found.nbytes == matrix_bytes(number_format, len(rows), columns)
    memory = np.zeros(found.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    memory[start : start + found.nbytes] = found.reshape(-1)
    return number_format, memory[start:]


@every_kernel
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_0", "IQ4_NL", *TYPES])
def test_products_are_those_with_rounded_vectors(kind: str, kernel: str) -> None:
    """Scales that are not rounded to float16 would change them by 1e-4; and a vector's product has the same bits beside others."""
    rows = blocks(kind, 37, 3)
    expected = gguf.dequantize(rows, gguf.GGMLQuantizationType[kind]).astype(np.float64)
    vectors = np.random.default_rng(2).standard_normal((7, expected.shape[1])).astype(np.float32)
    vectors[1, :40] = 0
    numbers, sums = rounded(np.where(vectors == 0, np.float32(1e-30), vectors), kind)
    wanted = numbers @ expected.T
    if sums is not None:  # the minimum of each 32 numbers is multiplied by their rounded sum, the rest by the integers
        least = np.repeat(parts_of(rows, kind).least.astype(np.float64), 32, axis=1)  # type: ignore[union-attr]
        wanted = numbers @ (expected - least).T + sums @ least[:, ::32].T
    number_format, memory = matrix_of(kind, rows, expected.shape[1])
    found = product(number_format, memory, expected.shape, vectors, kernel)
    size = np.abs(numbers) @ np.abs(expected).T
    assert (np.abs(found - wanted) <= 2e-6 * size).all()
    for number in range(len(vectors)):
        alone = product(number_format, memory, expected.shape, vectors[number : number + 1], kernel)
        np.testing.assert_array_equal(alone[0], found[number])


@every_kernel
@pytest.mark.parametrize("columns", [48, 200, 256])
def test_products_of_float16_are_those_with_vectors_in_float16(columns: int, kernel: str) -> None:
    """A vector in float32 would change them by 1e-4; and a vector's product has the same bits beside others."""
    random = np.random.default_rng(3)
    matrix, vectors = random.standard_normal((37, columns)).astype(np.float16), random.standard_normal((7, columns)).astype(np.float32)
    halves = vectors.astype(np.float16).astype(np.float64)
    found = product(c.F16, matrix, matrix.shape, vectors, kernel)
    assert (np.abs(found - halves @ matrix.T) <= 1e-6 * (np.abs(halves) @ np.abs(matrix).T)).all()
    for number in range(len(vectors)):
        alone = product(c.F16, matrix, matrix.shape, vectors[number : number + 1], kernel)
        np.testing.assert_array_equal(alone[0], found[number])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "F16"])
def test_info_says_what_the_weights_take(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(floats("untied"), path, kind)
    checkpoint = open_checkpoint(path)
    weights = open_executor(checkpoint, RunOptions(threads=1)).model.weights
    assert forecast(checkpoint, RunOptions()).weight_bytes == bytes_of(weights)


def bytes_of(weights: Weights) -> int:
    """What all parameters take."""
    parameters = weights.matches.parameters
    matrices = [weights.matrix(name.removesuffix(".weight")).data for name, match in parameters.items() if len(match.tensor.shape) > 1]
    vectors = [weights.vector(name) for name, match in parameters.items() if len(match.tensor.shape) == 1]
    return sum(array.nbytes for array in [*matrices, *vectors] if array is not None)


@pytest.mark.parametrize("kind", TYPES)
def test_blocks_take_eight_and_a_half_bits_at_most(kind: str) -> None:
    assert 8 * matrix_bytes(GGML_FORMATS[kind], 64, 1024) <= 8.5 * 64 * 1024


@pytest.mark.parametrize(("kind", "number_format"), [("Q8_0", c.Q8_0), ("F16", c.F16)])
def test_files_have_a_cache_in_float16(kind: str, number_format: int, tmp_path: Path) -> None:
    write_gguf(floats("untied"), path := tmp_path / "model.gguf", kind)
    model = open_executor(open_checkpoint(path), RunOptions(threads=1)).model
    assert model.cache_item_bytes == 2 and model.weights.matrix("decoder.layers.0.mixer.q").format == number_format


def test_a_gate_in_float16_is_multiplied_by_vectors_in_float16(tmp_path: Path) -> None:
    """llama.cpp's quantiser leaves that of a shared expert as it is; what a folder has in float16 takes vectors in float32."""
    changes = {"decoder_sparse_step": 1, "mlp_only_layers": [], "use_sliding_window": False}
    folder = random_folder("qwen2_moe", changes, tmp_path / "folder", torch.float16, 1)
    write_gguf(folder, path := tmp_path / "model.gguf", "F16")
    for place, gate, other in ((path, c.F16, c.F16), (folder, c.FLOAT32, c.FLOAT16)):
        checkpoint = open_checkpoint(place)
        weights = open_executor(checkpoint, RunOptions(threads=1)).model.weights
        formats = [
            weights.matrix(f"decoder.layers.0.{name}").format for name in ("feed_forward.shared_gate", "feed_forward.router", "mixer.q")
        ]
        assert formats == [gate, c.FLOAT32, other]
        assert forecast(checkpoint, RunOptions()).weight_bytes == bytes_of(weights)
