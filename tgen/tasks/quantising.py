"""Writes a copy of a model's folder with its matrices as integers of 8 or 4 bits, in the compressed-tensors format `pack-quantized`.

The integers and scales are those that --quantize computes. Embeddings, the head, norms and biases are copied.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array, MappedFiles, is_finite
from tgen.checkpoint.matching import no_number
from tgen.checkpoint.quantised.compressed import SCALE, SHAPE, WORDS, quantization_config
from tgen.checkpoint.quantised.method import SCALES
from tgen.checkpoint.safetensors import SAFETENSORS
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import UsageError
from tgen.executors.native.packing import Packer, tensors_of_layers
from tgen.executors.native.panels import GROUP
from tgen.executors.native.weights import FORMATS, StoredMatrix, converted
from tgen.families.registry import find_family
from tgen.files import TEMPORARY, write_text

WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.gguf", "*.h5", "*.msgpack", "*.pt", "*.pth", "*.onnx")
Entry = tuple[str, str, tuple[int, ...], int, Callable[[], Array]]  # name, type, shape, bytes, and the function that gives the numbers


def quantisable(checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """The tensors that the format can hold as integers: the layers' matrices of whole groups that are stored [outputs, inputs].

    Raises UsageError for a model that has none, that is quantised already, or that has parts that tgen does not run.
    """
    if checkpoint.folder.is_file():
        raise UsageError(
            f"{checkpoint.name} is a GGUF file, and tgen quantize writes folders from folders", "use --quantize when running it"
        )
    if checkpoint.is_quantised:
        raise UsageError(f"{checkpoint.name} is quantised already", "start from the folder with the original weights")
    if checkpoint.adapters:
        raise UsageError(f"{checkpoint.name} has an adapter, and tgen quantize writes no merged model", "use --quantize when running it")
    if checkpoint.matches.left_out:
        raise UsageError(
            f"{checkpoint.name} has parts that tgen neither runs nor quantises, such as a vision tower", "use --quantize when running it"
        )
    found = tensors_of_layers(checkpoint.spec, checkpoint.matches)
    tensors = {name: tensor for name, tensor in checkpoint.stored.items() if tensor in found and tensor.dtype in SCALES}
    if not tensors:
        reason = f"its matrices are stored [inputs, outputs], or have no whole groups of {GROUP} columns"
        raise UsageError(f"no matrix of {checkpoint.name} can be written as integers: {reason}", "use --quantize when running it")
    return tensors


def write_quantised(
    checkpoint: Checkpoint, tensors: dict[str, StoredTensor], out: Path, bits: int, packer: Packer, done: Callable[[int], None]
) -> int:
    """Write the folder with these tensors as integers, and return the bytes of its weights. `done(1)` is called after each tensor.

    The folder appears only when it is whole. Raises CheckpointError for NaN or infinity, OSError.
    """
    beside = out.with_name(f".{out.name}.{os.urandom(8).hex()}{TEMPORARY}")
    try:
        shutil.copytree(checkpoint.folder, beside, ignore=shutil.ignore_patterns("config.json", ".*", *WEIGHTS))
        size = _write_tensors(beside / SAFETENSORS, list(_entries(checkpoint, tensors, bits, packer)), done)
        config = {**checkpoint.config, "quantization_config": quantization_config(bits, GROUP, _ignored(checkpoint, tensors))}
        write_text(beside / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        os.rename(beside, out)  # this replaces an empty folder
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return size


def _ignored(checkpoint: Checkpoint, tensors: dict[str, StoredTensor]) -> list[str]:
    """The modules that keep their matrices. The head is one of them even if it shares the embedding, so that no tensor has its name."""
    modules = {name.removesuffix(".weight") for name, tensor in checkpoint.stored.items() if name not in tensors and len(tensor.shape) == 2}
    if checkpoint.spec.head is not None:
        untied = replace(checkpoint.spec, head=replace(checkpoint.spec.head, tied=False))
        table = find_family(checkpoint.model_type).tensors(untied)
        modules |= {table.sources["head.out.weight"].name.removesuffix(".weight"), "lm_head"}  # the head's old name, and that of today
    return sorted(modules)


def _entries(checkpoint: Checkpoint, tensors: dict[str, StoredTensor], bits: int, packer: Packer) -> Iterator[Entry]:
    files = MappedFiles()
    for name, tensor in checkpoint.stored.items():
        if name not in tensors:
            yield name, tensor.dtype, tensor.shape, tensor.nbytes, partial(_as_stored, tensor, files)
            continue
        rows, columns = tensor.shape
        module, matrix = name.removesuffix("weight"), _Integers(name, tensor, bits, packer, files)
        yield f"{module}{WORDS}", "I32", (rows, columns * bits // 32), rows * columns * bits // 8, matrix.words
        yield f"{module}{SCALE}", tensor.dtype, (rows, columns // GROUP), tensor.nbytes // GROUP, matrix.scales
        yield f"{module}{SHAPE}", "I64", (2,), 16, partial(np.array, tensor.shape, np.int64)


def _as_stored(tensor: StoredTensor, files: MappedFiles) -> Array:
    """The numbers as they are in the file, whatever their type."""
    if tensor.strides is not None:
        return files.array(tensor)
    return files.array(replace(tensor, dtype="U8", shape=(tensor.nbytes,)))


@dataclass(slots=True)
class _Integers:
    """A stored matrix of floats as integers, which `words` computes. `scales` gives the scales of the last call of `words`."""

    name: str
    tensor: StoredTensor
    bits: int
    packer: Packer
    files: MappedFiles
    halves: Array = field(default_factory=lambda: np.empty(0, np.float16))

    def words(self) -> Array:
        """The integers. Raises CheckpointError for NaN or infinity."""
        array = np.ascontiguousarray(self.files.array(self.tensor))
        if not is_finite(array, self.tensor.dtype):
            raise no_number(self.name)
        rows, columns = self.tensor.shape
        words, self.halves = self.packer.integers(StoredMatrix(FORMATS[self.tensor.dtype], rows, columns, array), self.bits)
        self.files.release(self.tensor)
        return words

    def scales(self) -> Array:
        """The scales in the type of the floats, which holds each of them exactly."""
        return converted(self.halves.astype(np.float32), self.tensor.dtype)


def _write_tensors(path: Path, entries: list[Entry], done: Callable[[int], None]) -> int:
    """Write a safetensors file tensor by tensor, so that only one is in memory at a time, and return its size."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dtype, shape, size, _ in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, numbers in entries:
            file.write(np.ascontiguousarray(numbers()).data)
            done(1)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
