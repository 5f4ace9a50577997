"""The memory that `run_memory` foretells is what the library has taken after such a run, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.shapes import llama_like, write_folder
from tests.executors.native.models import LIBRARY, folder_of
from tests.sweeps import sweep
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.executors.native.forecast import run_memory
from tgen.executors.native.open import open_executor
from tgen.executors.native.session import NativeSession
from tgen.options import Dtype, Quantize, RunOptions

GPT2 = {"model_type": "gpt2", "n_embd": 512, "n_layer": 3, "n_head": 8, "vocab_size": 3000, "n_positions": 2048}
GPT2 |= {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
SHAPES: dict[str, dict[str, Any]] = {"llama": llama_like("llama", 512, 4, 8, 4, 1408, 3000), "gpt2": GPT2}
AT_ONCE = 256
assert LIBRARY is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models whose buffers and caches fill several huge pages."""
    place = tmp_path_factory.mktemp("models")
    for name, config in SHAPES.items():
        write_folder(place / name, config)
    return {name: place / name for name in SHAPES}


def taken(checkpoint: Checkpoint, options: RunOptions, prompt: int, new: int, rows: int) -> tuple[int, int]:
    """The bytes of the cache, and those of the run's buffers, its tables and its largest result, after a run of this length."""
    executor = open_executor(checkpoint, options)
    model, results = executor.model, [0]
    ids = [number % model.spec.vocab for number in range(prompt)]
    run = model.run

    def watched(*arguments: Any, **named: Any) -> Any:
        found = run(*arguments, **named)
        results.append(4 * found.size)
        return found

    model.run = watched  # type: ignore[method-assign]
    if "decode" not in model.programs.named:
        executor.encode([ids])
        if "fill" in model.programs.named:
            executor.masked_logits([ids], [[0]])
    else:
        session = executor.open()
        session.admit([None if model.spec.encoder is None else ids])
        read(session, ids if model.spec.encoder is None else [0])
        session.select([0] * rows)
        for _ in range(new - 1):
            session.extend([[1]] * rows)
    cache = sum(one.held_bytes() for one in model.caches.values())
    tables = sum(table.nbytes for table in model._tables)
    tables += sum(matrix.data.nbytes for name, matrix in model.weights._matrices.items() if name.endswith(".positions") and sinusoid(model))
    one = next(iter(model.caches.values())).new_row()
    program = next(iter(model.programs.named))
    return cache, model.run_bytes(program, [one], [1], None if program == "encode" else [0]) + max(results) + tables


def read(session: NativeSession, ids: list[int]) -> None:
    parts: Iterator[list[int]] = (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
    for part in parts:
        session.extend([part])


def sinusoid(model: Any) -> bool:
    return any(stack.positions is not None and stack.positions.kind == "sinusoid" for stack in model.spec.stacks.values())


@pytest.mark.parametrize(
    ("prompt", "new", "rows"), sweep([(1, 1, 1), (300, 20, 1), (1030, 40, 4), (30, 600, 2)], lambda one: one[0] >= 300)
)
@pytest.mark.parametrize(("dtype", "quantize"), [("auto", "none"), ("float32", "none"), ("auto", "int8"), ("auto", "int4")])
@pytest.mark.parametrize("name", SHAPES)
def test_caches_and_buffers(
    name: str, dtype: Dtype, quantize: Quantize, prompt: int, new: int, rows: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGEN_CACHE_GB", "0")
    checkpoint, options = open_checkpoint(folders[name]), RunOptions(dtype=dtype, quantize=quantize, threads=2)
    found = run_memory(checkpoint, options, prompt, new, rows, AT_ONCE)
    assert (found.cache, found.buffers) == taken(checkpoint, options, prompt, new, rows)


@pytest.mark.parametrize(
    "name", ["marian", "t5", "bart", "bert", "bert_headless", "odd_llama", "qwen2_moe", "gpt_oss", "bloom", "apertus", "llama3"]
)
def test_every_kind_of_model(name: str) -> None:
    checkpoint, options = open_checkpoint(folder_of(name), vectors=True), RunOptions(threads=2)
    prompt, new, rows = min(40, checkpoint.spec.context - 20), 17, 3
    found = run_memory(checkpoint, options, prompt, new, rows, AT_ONCE)
    assert (found.cache, found.buffers) == taken(checkpoint, options, prompt, new, rows)
