"""Ways to damage a folder, each with the error that it must cause."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tgen.errors import CheckpointError

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 497772\n"
WEIGHTS = "model.safetensors"
CopyGolden = Callable[[str], Path]
Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A way to damage a copy of a golden, and patterns that the error's message and hint must match."""

    golden: str
    damage: Damage
    message: str
    hint: str
    error: type[CheckpointError] = CheckpointError


CASES: dict[str, Case] = {}


def bad(golden: str, message: str, hint: str, error: type[CheckpointError] = CheckpointError) -> Callable[[Damage], Damage]:
    """Register the decorated function as a case."""

    def register(damage: Damage) -> Damage:
        CASES[damage.__name__] = Case(golden, damage, message, hint, error)
        return damage

    return register


def config(golden: str, message: str, hint: str, error: type[CheckpointError] = CheckpointError, **changes: Any) -> None:
    """Register a config.json with other values; None takes a key away."""
    name = "config " + ", ".join(f"{key}={value}" for key, value in changes.items())[:60]
    assert name not in CASES
    CASES[name] = Case(golden, lambda folder: edit(folder / "config.json", **changes), message, hint, error)


def edit(path: Path, **changes: Any) -> None:
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def edit_bin(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    import torch

    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")


def edit_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file by hand; the library would not write such headers."""
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    write_header(folder, json.dumps(header).encode(), content[8 + length :])


def write_header(folder: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def assert_clear(error: CheckpointError, message: str, hint: str) -> None:
    assert error.exit_code == 3
    assert re.search(message, error.message), error.message
    assert error.hint is not None
    assert re.search(hint, error.hint), error.hint
    assert "\n" not in error.message
