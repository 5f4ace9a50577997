"""Reads and writes text and small files: each fault of a file has one clear error, and a written file is whole or absent."""

from __future__ import annotations

import codecs
import errno
import glob
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tgen.errors import CheckpointError, UsageError

LFS_MARK = b"version https://git-lfs"
LFS_HINT = "run `git lfs pull` in the folder, or download the file itself"
READ_HINT = "check that it is a file and that you may read it"
DOWNLOAD_HINT = "download the file again"
BYTE_ORDER_MARK = "\ufeff"
TEMPORARY = ".partial"
MAX_JSON_BYTES = 32 * 2**20  # Python needs up to forty times as much memory to hold the values


def refuse_lfs_pointer(path: Path) -> None:
    """Raises CheckpointError where a Git-LFS pointer, a pipe or a device stands in place of the file, or where it cannot be read."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):  # opening a pipe would block until somebody writes into it
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
        raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES // 2**20} MiB, too large for such a file", DOWNLOAD_HINT)
    refuse_lfs_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", DOWNLOAD_HINT) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, not a JSON object", DOWNLOAD_HINT)
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty object if the file is absent. Raises CheckpointError, naming the file."""
    return read_json(path) if path.exists() else {}


def refuse_constant(name: str) -> NoReturn:
    """Raise ValueError for NaN or Infinity, which Python's JSON reader takes and JSON does not have; for its `parse_constant`."""
    raise ValueError(f"{name} is not a JSON value")


def decode_text(data: bytes, name: str, *, start: bool = True) -> str:
    """The text of UTF-8 bytes, without a byte order mark if they are the `start` of a file or stream: Windows editors write one.

    Raises UsageError, which calls the bytes `name`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 at byte {error.start}", conversion_hint(data)) from error
    return text.removeprefix(BYTE_ORDER_MARK) if start else text


def conversion_hint(data: bytes) -> str:
    """How to make UTF-8 of bytes that are none: from UTF-16 if they begin with its mark, as what PowerShell writes does."""
    encoding = "UTF-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "WINDOWS-1252"
    return f"convert it, for example with iconv -f {encoding} -t UTF-8"


def current_folder_is_gone() -> bool:
    """Whether the folder that this process works in has been removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def write_atomically(path: Path, write: Callable[[Path], None], *, shared: bool = False) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in place of `path` in one step. Raises OSError, naming `path`.

    Like an editor, this keeps the permissions of a file that is there already, and a symbolic link: the file it leads to is replaced.
    A pipe or a device is written to directly. `shared` says that several processes may write the file at once: the last one wins. Without
    it, temporary files that killed processes left behind are removed.
    """
    if path.exists() and not path.is_file():
        write(path)
        return
    path = Path(os.path.realpath(path))
    if not shared:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
            left.unlink(missing_ok=True)
    temporary = _temporary(path)
    try:
        mode = (path if path.exists() else temporary).stat().st_mode
        temporary.chmod(mode)
        write(temporary)
        temporary.chmod(mode)  # again: some writers make files that only their owner may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def lock(file: int, path: Path) -> None:
    """Hold an open file or folder until it is closed, or the process ends. Raises UsageError where another run writes to `path`."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"another run is writing to {path}", "wait for it to end, or name another --output") from error
    except OSError:
        return  # some file systems have no locks


def try_writing(path: Path) -> None:
    """Raise the OSError, if any, that `write_atomically` would raise for this path."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.exists() or path.is_file():
        _temporary(Path(os.path.realpath(path))).unlink()


def _temporary(path: Path) -> Path:
    """A new empty file beside `path`. Nobody can guess its name, so nobody can have put a link in its place."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # the user's umask removes some of these permissions
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return temporary


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """A UTF-8 text file, whole or absent. Raises OSError. `shared` as for `write_atomically`."""
    write_atomically(path, lambda temporary: _write(temporary, text), shared=shared)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
