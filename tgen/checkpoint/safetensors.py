"""Lists the tensors of a folder and where they lie in its safetensors or `.bin` files, single or sharded. It reads only the headers.

The safetensors library validates the headers of its own format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tgen.checkpoint.bins import MAX_AXES, read_bin
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT, READ_HINT, read_json, refuse_lfs_pointer

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
MAX_HEADER = 16 * 2**20  # bytes; the header of a model with ten thousand tensors has one or two million
MAX_NAME = 200  # characters; the system may raise an error for a longer name
# Phrases in the safetensors library's errors about a header, and what they mean for the user.
REASONS = {
    "not fully covered": "the file is truncated, or longer than its header says",
    "invalid header length": "the file is truncated within its header",
    "header too small": "the file is truncated within its header",
    "invalid offset": "the offsets of its tensors overlap or leave gaps",
}


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder by name. Raises CheckpointError for missing, truncated or malformed files."""
    for single, index, read in ((SAFETENSORS, SAFETENSORS_INDEX, read_safetensors), (BIN, BIN_INDEX, _read_bin)):
        if (folder / single).exists():
            return read(folder / single)
        if (folder / index).exists():
            return _merged(map(read, _shards(folder / index)))
    present = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in (".gguf", ".h5", ".msgpack", ".pt", ".pth", ".onnx", ".safetensors", ".bin")
    )
    also = f"; found {', '.join(present)}, which is not read" if present else ""
    if whole := [name for name in present if name.endswith(".gguf")]:
        raise CheckpointError(f"no weights in {folder} beside its config.json", f"to run the GGUF file, name it: -m {folder / whole[0]}")
    raise CheckpointError(f"no weights in {folder}", f"expected {SAFETENSORS}, {SAFETENSORS_INDEX} or {BIN}{also}")


def weight_bytes(tensors: dict[str, StoredTensor]) -> int:
    """The size of the weights as stored."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _merged(shards: Iterable[dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """All tensors of all shards. Raises CheckpointError for a tensor that is in two of them."""
    merged: dict[str, StoredTensor] = {}
    for shard in shards:
        for name in merged.keys() & shard.keys():
            raise CheckpointError(f"{name} is in both {merged[name].file.name} and {shard[name].file.name}", DOWNLOAD_HINT)
        merged |= shard
    return merged


def _shards(index: Path) -> list[Path]:
    """The files that an index names, each once. Raises CheckpointError for a file that is missing or outside the folder."""
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries.values()):
        raise CheckpointError(f"{index} has no weight_map from tensor names to files", DOWNLOAD_HINT)
    shards = []
    for name in sorted(set(entries.values())):
        if Path(name).name != name or name == "..":
            raise CheckpointError(f"{index} names a file outside the folder: {name!r}", DOWNLOAD_HINT)
        if len(name) > MAX_NAME or not (index.parent / name).is_file():
            raise CheckpointError(f"a shard is missing: {name}, which {index.name} names", "download the missing file into the folder")
        shards.append(index.parent / name)
    return shards


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of one file by name. Raises CheckpointError for a file that is damaged or that the system does not let us read."""
    from safetensors import SafetensorError, safe_open

    refuse_lfs_pointer(path)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise CheckpointError(f"{path} is damaged: header too large", DOWNLOAD_HINT)
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        said = str(error).removeprefix("Error while deserializing header: ")
        reason = next((reason for mark, reason in REASONS.items() if mark in said), said)
        raise CheckpointError(f"{path} is damaged: {reason}", DOWNLOAD_HINT) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}", READ_HINT) from error
    with open(path, "rb") as file:
        file.seek(8)
        header = json.loads(file.read(length))
    if any(len(entry["shape"]) > MAX_AXES for name, entry in header.items() if name != "__metadata__"):
        raise CheckpointError(f"{path} is damaged: a tensor has more than {MAX_AXES} axes", DOWNLOAD_HINT)
    base = 8 + length
    return {
        name: StoredTensor(path, entry["dtype"], tuple(entry["shape"]), *(base + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _read_bin(path: Path) -> dict[str, StoredTensor]:
    refuse_lfs_pointer(path)
    return read_bin(path)
