"""Where a batch's records go, and which lines of the input they already are there for. Knows lines and numbers, no model.

A record is written whole or, should the disk be full, not at all; one that a kill cut short is taken away when the run is resumed.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgen.errors import TgenError, UsageError
from tgen.ui.output import open_stdout, write_text
from tgen.ui.terminal import is_terminal

BEGINNING = b'{"line": '  # of every record
RESUME_HINT = "--resume goes on with it; or remove it, or name another file"


class Written:
    """Numbers of lines, most of them in order: all up to one, and a few after it."""

    def __init__(self) -> None:
        self.all_up_to = 0
        self._after: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number <= self.all_up_to or number in self._after

    def __len__(self) -> int:
        return self.all_up_to + len(self._after)

    @property
    def highest(self) -> int:
        """The greatest of them, 0 if there is none."""
        return max(self._after, default=self.all_up_to)

    def add(self, number: int) -> None:
        """Take a number that is not there yet."""
        self._after.add(number)
        while self.all_up_to + 1 in self._after:
            self.all_up_to += 1
            self._after.discard(self.all_up_to)


@dataclass(frozen=True, slots=True)
class Last:
    """A record that was there already: its line, what the input's writer calls that, and the model that answered."""

    number: int
    identity: Any
    model: str | None


class Journal:
    """Records out, to standard output or to a file that can be gone on with; a context manager, for such a file is locked meanwhile."""

    def __init__(self, path: Path | None, *, resume: bool) -> None:
        """Raises UsageError for a file that holds something, unless it is to be resumed and holds records of such a run."""
        self.written = Written()
        self.last: Last | None = None
        self.whole = True  # until a record could not be written
        self._path = path
        if path is None:
            self._file = open_stdout().fileno()
            return
        try:
            if resume and path.exists() and not path.is_file():
                raise UsageError(f"--resume needs an --output that is a file, which {path} is not", "leave --resume out")
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                self._lock(path)  # first: what the file holds counts only when nobody else is writing to it
                if os.fstat(self._file).st_size:
                    if not resume:
                        raise UsageError(f"--output {path} is there already", RESUME_HINT)
                    self._resume(path)
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}", "name a file in a folder you may write to") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            os.close(self._file)

    def write(self, number: int, record: dict[str, Any]) -> None:
        """The record of a line. Raises TgenError if it cannot be written, and then nothing of it is in a file; BrokenPipeError."""
        text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        if self._path is None and is_terminal(sys.stdout):
            write_text(text)
        else:
            self._append(text.encode())
        self.written.add(number)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BrokenPipeError:
            self.whole = False
            raise
        except OSError as error:
            self.whole = False
            begun = len(data) - len(rest)
            if begun and stat.S_ISREG(os.fstat(self._file).st_mode):
                end = os.lseek(self._file, -begun, os.SEEK_CUR)
                os.ftruncate(self._file, end)
            hint = "what was written is whole" + ("; --resume goes on with it" if self._path else "")
            raise TgenError(f"cannot write {self._path or 'to standard output'}: {error.strerror}", hint) from error

    def _lock(self, path: Path) -> None:
        """Raise UsageError where another run writes to the file: both would answer the same lines."""
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another run is writing to {path}", "wait for it to end, or name another file") from error
        except OSError:
            return  # some file systems have no locks

    def _resume(self, path: Path) -> None:
        """Read which records are there, and cut off what comes after the last whole line."""
        with open(path, "rb+") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n") and (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
                    break  # by a kill
                self.last = _last(path, line)
                if self.last.number in self.written:
                    raise UsageError(
                        f"{path} has two records of line {self.last.number}", "it was not written by one run; name another file"
                    )
                self.written.add(self.last.number)
                whole += len(line)
            file.truncate(whole)


def _last(path: Path, line: bytes) -> Last:
    from tgen.wire.requests import identity

    try:
        record = json.loads(line)
        number, model = record["line"], (record.get("response") or {"body": record})["body"].get("model")
        if type(number) is int and number > 0:
            return Last(number, identity(record), model)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        pass
    raise UsageError(f"{path} holds something other than records of a batch", "it is left as it was; name another file")


def count_lines(files: list[Path]) -> int | None:
    """How many lines files have; None where one is not a plain file, so that nobody knows yet."""
    if not files or not all(file.is_file() for file in files):
        return None
    return sum(_lines(file) for file in files)


def _lines(file: Path) -> int:
    count, last = 0, b"\n"
    for block in _blocks(file):
        count += block.count(b"\n")
        last = block
    return count + (not last.endswith(b"\n"))


def _blocks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            yield block
