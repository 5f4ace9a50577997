"""Opens a GGUF file, or the parts of a split one: its configuration, and where its tensors lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgen.checkpoint.gguf.blocks import Blocks
from tgen.checkpoint.gguf.config import architecture_of, config_of, generation_of
from tgen.checkpoint.gguf.tensors import gguf_table, split_experts
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.table import Table
from tgen.files import DOWNLOAD_HINT
from tgen.gguf_header import Header, TensorInfo, read_headers
from tgen.spec.records import ModelSpec

# ggml's numbers for types of plain numbers, with tgen's name and the bytes of a number.
PLAIN = {0: ("F32", 4), 1: ("F16", 2), 28: ("F64", 8), 30: ("BF16", 2)}
# ggml's numbers for types of blocks, with ggml's name, the numbers in a block, and the bytes of a block.
BLOCKS = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    39: ("MXFP4", 32, 17),
}


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A model in one or several GGUF files, with the config.json and generation_config.json made from their metadata."""

    headers: list[Header]
    config: dict[str, Any]
    generation: dict[str, Any]
    interleaved: bool

    def stored(self) -> dict[str, StoredTensor]:
        """Its tensors. Raises CheckpointError, UnsupportedError."""
        places = {name: _stored(name, info, header) for header in self.headers for name, info in header.tensors.items()}
        return split_experts(places)

    def table(self, spec: ModelSpec) -> Table:
        """The table that says where the file holds each parameter."""
        return gguf_table(spec, _infos(self.headers), interleaved=self.interleaved)


def open_gguf(path: Path) -> GgufFile:
    """Open a model by its file, or by the first file of a split model. Raises CheckpointError, UnsupportedError."""
    headers = read_headers(path)
    first = headers[0]
    architecture = architecture_of(first)
    return GgufFile(headers, config_of(first, _infos(headers)), generation_of(first), architecture.interleaved)


def _infos(headers: list[Header]) -> dict[str, TensorInfo]:
    """The tensors of all parts of a model. Raises CheckpointError for a tensor that is in two of them."""
    found: dict[str, TensorInfo] = {}
    for header in headers:
        for name in found.keys() & header.tensors.keys():
            raise CheckpointError(f"two parts of {headers[0].path} have the tensor {name}", DOWNLOAD_HINT)
        found |= header.tensors
    return found


def _stored(name: str, info: TensorInfo, header: Header) -> StoredTensor:
    """Where a tensor lies. Raises CheckpointError if the file does not hold all of it, UnsupportedError for an unknown type of number."""
    count = math.prod(info.shape)
    if info.kind in PLAIN:
        dtype, size = PLAIN[info.kind]
        kind, length = None, count * size
    elif info.kind in BLOCKS:
        kind, numbers, size = BLOCKS[info.kind]
        if info.shape[-1] % numbers:
            raise CheckpointError(f"{header.path} is damaged: {name} has rows of {info.shape[-1]} numbers in {kind}", DOWNLOAD_HINT)
        dtype, length = "U8", count // numbers * size
    else:
        known = ", ".join([*(plain[0] for plain in PLAIN.values()), *(block[0] for block in BLOCKS.values())])
        message = f"{header.path}: {name} is stored in ggml's type {info.kind}, which is not implemented"
        raise UnsupportedError(message, f"implemented: {known}")
    if info.start + length > header.size:
        raise CheckpointError(f"{header.path} is truncated: {name} ends at byte {info.start + length} of {header.size}", DOWNLOAD_HINT)
    if kind is None:
        return StoredTensor(header.path, dtype, info.shape, info.start, info.start + length)
    shape = (*info.shape[:-1], info.shape[-1] // numbers * size)
    return StoredTensor(
        header.path, "F32", info.shape, packed=Blocks(StoredTensor(header.path, dtype, shape, info.start, info.start + length), kind)
    )
