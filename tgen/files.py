"""Read the small files of a model folder, with one clear error for each way they can be wrong. Knows no model."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from tgen.errors import CheckpointError

LFS_MARK = b"version https://git-lfs"
LFS_HINT = "run `git lfs pull` in the folder, or download the file itself"
READ_HINT = "check that it is a file and that you may read it"
DOWNLOAD_HINT = "download the file again"
MAX_JSON_BYTES = 32 * 2**20  # Python needs up to forty times as much memory to hold it


def refuse_lfs_pointer(path: Path) -> None:
    """Raises CheckpointError where a Git-LFS pointer, a pipe or a device stands in place of the file, or where it cannot be read."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):  # to open a pipe would be to wait for whoever writes into it
            raise CheckpointError(f"cannot read {path}: it is {'a directory' if stat.S_ISDIR(mode) else 'no regular file'}", READ_HINT)
        with open(path, "rb") as file:
            start = file.read(len(LFS_MARK))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}", READ_HINT) from error
    if start == LFS_MARK:
        raise CheckpointError(f"{path} is a Git-LFS pointer, not the file", LFS_HINT)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that must be there. Raises CheckpointError, naming the file."""
    if not path.is_file():
        raise CheckpointError(f"no {path.name} in {path.parent}", "a model folder holds config.json, tokenizer.json and the weights")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES // 2**20} MiB, which no such file is", DOWNLOAD_HINT)
    refuse_lfs_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", DOWNLOAD_HINT) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not a JSON object", DOWNLOAD_HINT)
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """The same for a file that may be absent: then an empty object."""
    return read_json(path) if path.exists() else {}
