"""Where a model runs and in which number format, and the error when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tgen.checkpoint.container import open_checkpoint
from tgen.cli.main import run
from tgen.errors import MemoryLimitError, UsageError
from tgen.executors.formats import available_memory
from tgen.executors.open import open_model
from tgen.executors.torch import placement
from tgen.executors.torch.placement import choose_device, choose_dtype, memory_errors
from tgen.options import RunOptions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with neither kind of accelerator and four GB to spare."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(placement, "available_memory", lambda: 4 * 10**9)
    return monkeypatch


def test_auto_takes_the_best_device(machine: pytest.MonkeyPatch) -> None:
    assert choose_device(RunOptions()).type == "cpu"
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device(RunOptions()).type == "mps"
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(RunOptions()).type == "cuda"
    assert choose_device(RunOptions(device="cpu")).type == "cpu"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}"):
        choose_device(RunOptions(device=device))  # type: ignore[arg-type]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("asked", "device", "parameters", "expected"),
    [
        ("auto", CPU, 10**8, torch.float32),
        ("auto", CPU, 650 * 10**6, torch.float32),  # 2.6 GB of float32 leave room
        ("auto", CPU, 750 * 10**6, torch.bfloat16),  # 3 GB would not
        ("auto", CPU, 10**9, torch.bfloat16),
        ("auto", CUDA, 10**8, torch.bfloat16),
        ("float32", CUDA, 10**9, torch.float32),
        ("float16", CPU, 10**8, torch.float16),
        ("bfloat16", CPU, 10**8, torch.bfloat16),
    ],
)
def test_number_format(asked: str, device: torch.device, parameters: int, expected: torch.dtype) -> None:
    options = RunOptions(dtype=asked)  # type: ignore[arg-type]
    assert choose_dtype(options, device, torch.bfloat16, parameters) == expected


@pytest.mark.parametrize(
    ("matrices", "vectors", "expected"),
    [
        ("bfloat16", "float32", torch.bfloat16),
        ("float16", "float32", torch.float16),
        ("float32", "bfloat16", torch.float32),
        ("float64", "float64", torch.float32),
        ("float64", "float32", torch.float32),
    ],
)
def test_matrices_settle_what_a_model_is_stored_as(
    matrices: str, vectors: str, expected: torch.dtype, machine: pytest.MonkeyPatch, copy_golden: Callable[[str], Path]
) -> None:
    """Whatever comes first in the files. No machine has memory for float32 here, so the model stays as it is stored."""
    machine.setattr(placement, "available_memory", lambda: 1)
    folder = copy_golden("mistral")
    tensors = load_file(folder / "model.safetensors")
    types = {1: getattr(torch, vectors), 2: getattr(torch, matrices)}
    save_file({name: tensor.to(types[tensor.ndim]) for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert open_model(open_checkpoint(folder), RunOptions(device="cpu")).dtype == expected


def test_info_names_every_format(copy_golden: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = copy_golden("mistral")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor.bfloat16() if tensor.ndim == 2 else tensor.float() for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    assert run(["info", str(folder), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["stored_as"] == ["BF16", "F32"]


def test_one_wide_matrix_keeps_its_numbers(copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("mistral")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    for other in (torch.float32, torch.float16):
        save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"].to(other)}, folder / "model.safetensors")
        assert open_checkpoint(folder).matches.number_format == "F32"


def test_available_memory_is_a_number_of_bytes() -> None:
    found = available_memory()
    assert found is None or 2**20 < found < 2**50


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_running_out_of_memory(error: Exception) -> None:
    with pytest.raises(MemoryLimitError, match=r"^out of memory while reading 7 tokens$") as caught, memory_errors("reading 7 tokens"):
        raise error
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_a_real_allocation_that_fails() -> None:
    with pytest.raises(MemoryLimitError), memory_errors("allocating an exabyte"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory_errors("adding"):
        raise RuntimeError("shapes")
