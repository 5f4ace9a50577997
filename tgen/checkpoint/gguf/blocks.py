"""The numbers of GGUF's blocks: as floats, or as integers with a scale for each 32 columns where a type has these.

A row of a tensor is a row of blocks, each with its scales beside its numbers; ggml-common.h of llama.cpp has the layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tgen.errors import UnsupportedError

Bytes = npt.NDArray[np.uint8]
AT_ONCE = 2**22  # bytes that are turned into floats at a time, to keep NumPy's temporary arrays small


def floats(blocks: Bytes, kind: str) -> npt.NDArray[np.float32]:
    """The numbers of blocks [rows, bytes] of a type, [rows, columns]. Raises UnsupportedError without the gguf package."""
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError as error:
        message = f"weights in GGUF's type {kind} need the gguf package, which is not installed"
        raise UnsupportedError(message, "pip install 'tgen[gguf]'") from error
    step = max(1, AT_ONCE // max(1, blocks.shape[1]))
    parts: list[Any] = [dequantize(blocks[first : first + step], GGMLQuantizationType[kind]) for first in range(0, len(blocks), step)]
    return np.concatenate(parts)
