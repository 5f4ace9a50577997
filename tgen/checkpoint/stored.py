"""One tensor in a file: its type, its shape, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint: its file, the type it is stored in ("F32", "BF16" ...), its shape.

    `start` and `stop` are byte offsets into the file. `strides` count numbers; None means row-major order.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0
    strides: tuple[int, ...] | None = None
