"""A file with the KV cache of a prompt, so that the next run need not read the prompt again.

The file is in safetensors format. It holds the prompt's ids, the session's state, and the model and the version of tgen that it is valid
for. If the file is damaged or belongs to another model, the run reads the prompt as it would without the file.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tgen import __version__
from tgen.checkpoint.container import Checkpoint
from tgen.engine.prefix import Prefix, common
from tgen.errors import UsageError
from tgen.executors.session import State
from tgen.files import try_writing, write_atomically
from tgen.options import Quantize

FORMAT = "tgen prompt cache 1"
MOST_HEADER_BYTES = 2**20


class PromptCache:
    """A prompt cache file, and the ids that it held before this run."""

    def __init__(self, path: Path, checkpoint: Checkpoint, quantize: Quantize = "none") -> None:
        """`quantize` counts as part of the model.

        Raises UsageError for a model with an encoder, and for a path that cannot be written, before anything is computed.
        """
        if checkpoint.spec.kind != "decoder-only":
            message = f"--prompt-cache needs a model that is decoder-only; {checkpoint.name} is {checkpoint.spec.kind}"
            raise UsageError(message, "leave --prompt-cache out")
        self._path = path
        self._model = f"{fingerprint(checkpoint)} {quantize} {__version__}"
        self._ids: list[int] = []
        self._check()

    def load(self, prefix: Prefix) -> str | None:
        """Restore the file's state into a prefix; returns a note for the user if the file is not usable."""
        if not self._path.exists() or not self._path.stat().st_size:
            return None
        try:
            ids, state = _read(self._path, self._model)
            prefix.restore(ids, state)
        except ValueError as error:
            return f"{self._path} is not used and will be replaced: {error}"
        self._ids = ids
        return None

    def save(self, prefix: Prefix, prompt_tokens: int) -> str | None:
        """Store the cache of a prefix's prompt, unless the file has it already; returns a note for the user if that fails."""
        ids = prefix.ids[:prompt_tokens]
        state = prefix.state(len(ids)) if ids else None
        if state is None or common(ids, self._ids) == len(ids):
            return None
        try:
            write_atomically(self._path, lambda path: _write(path, self._model, ids, state), shared=True)
        except OSError as error:
            return f"cannot write {self._path}: {error.strerror or error}"
        return None

    def _check(self) -> None:
        try:
            if self._path.exists() and not self._path.is_file():
                raise UsageError(f"--prompt-cache {self._path} is not a file", "name a file; tgen creates it if it does not exist")
            try_writing(self._path)
            if self._path.exists() and self._path.stat().st_size and "format" not in _header(self._path):
                # Another program wrote this file, so tgen must not overwrite it.
                raise UsageError(f"--prompt-cache {self._path} exists and is not a prompt cache", "name another file, or remove it")
        except OSError as error:
            hint = "name a file in a folder you may write to"
            raise UsageError(f"--prompt-cache {self._path} cannot be used: {error.strerror or error}", hint) from error


def fingerprint(checkpoint: Checkpoint) -> str:
    """A digest that changes whenever a model does: of config.json, the adapters, and the size and times of every file of weights.

    Hashing all weights would take longer than reading the prompt. Every write sets a file's ctime, and unlike its mtime, no program can set
    it back. A copied folder gets another digest, so its first run reads the prompt again.
    """
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    for adapter in checkpoint.adapters:
        digest.update(adapter.identity().encode())
    for path in sorted({part.file for tensor in checkpoint.stored.values() for part in tensor.parts}):
        status = path.stat()
        digest.update(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0".encode())
    return digest.hexdigest()


def _checksum(state: Mapping[str, np.ndarray]) -> str:
    total = 0
    for name in sorted(state):
        total = zlib.crc32(np.ascontiguousarray(state[name]).data, zlib.crc32(name.encode(), total))
    return str(total)


def _write(path: Path, model: str, ids: list[int], state: State) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {"ids": np.array(ids, dtype=np.int64), **{f"state.{name}": array for name, array in state.items()}}
    try:
        save_file(arrays, path, {"format": FORMAT, "model": model, "checksum": _checksum(arrays)})
    except SafetensorError as error:  # such as a full disk
        raise OSError(str(error)) from error


def _read(path: Path, model: str) -> tuple[list[int], State]:
    """Ids and state. Raises ValueError with the reason for a file that is not usable."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    header = _header(path)
    if header.get("format") != FORMAT or header.get("model") != model:
        raise ValueError("it was made with another model, another --quantize or by another version of tgen")
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError("it is damaged") from error
    if "ids" not in arrays or header.get("checksum") != _checksum(arrays):
        raise ValueError("it is damaged")
    ids = arrays.pop("ids")
    return [int(token) for token in ids.ravel()], {name.removeprefix("state."): array for name, array in arrays.items()}


def _header(path: Path) -> dict[str, str]:
    """The metadata that tgen wrote into the file; empty for a file that another program wrote. Raises OSError."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(size, MOST_HEADER_BYTES))).get("__metadata__")
    except (ValueError, AttributeError, RecursionError):
        return {}
    metadata = metadata if isinstance(metadata, dict) else {}
    return metadata if str(metadata.get("format")).startswith("tgen prompt cache") else {}
