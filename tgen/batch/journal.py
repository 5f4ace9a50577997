"""Writes a batch's records, and knows which lines of the input have one already.

A record is written whole or, should the disk be full, not at all; one that a kill cut short is removed when the run is resumed. A line that
is asked again has two records for a while, and the later one counts: the earlier is an error, and goes when the run ends.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tgen.errors import TgenError, UsageError
from tgen.files import lock, write_atomically
from tgen.ui.output import open_stdout, write_text
from tgen.ui.terminal import is_terminal
from tgen.wire.requests import LineKey, line_key

BEGINNING = b'{"line": '  # of every record
RESUME_HINT = "--resume goes on with it; or remove it, or name another file"
# How long the run waits for a full pipe before it asks whether to stop, and how many times it waits once the answer is yes.
PATIENCE_SECONDS, PATIENCE_TURNS = 0.1, 5


def encode(record: dict[str, Any]) -> bytes:
    """A record as a line of the output."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


class NobodyReadsError(Exception):
    """The run is to stop, and the pipe for its records is full because nobody reads it."""


class Written:
    """A set of line numbers: all up to `all_up_to`, and some after it. It needs little memory while numbers come nearly in order."""

    def __init__(self) -> None:
        self.all_up_to = 0
        self._after: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number <= self.all_up_to or number in self._after

    def __len__(self) -> int:
        return self.all_up_to + len(self._after)

    @property
    def highest(self) -> int:
        """The greatest number, 0 if there is none."""
        return max(self._after, default=self.all_up_to)

    def add(self, number: int) -> None:
        """Add a number that is not in the set yet."""
        self._after.add(number)
        while self.all_up_to + 1 in self._after:
            self.all_up_to += 1
            self._after.discard(self.all_up_to)


@dataclass(frozen=True, slots=True)
class OldRecord:
    """A record of an earlier run: the line it answers, the model that answered, and whether it is an error."""

    key: LineKey
    model: str | None
    failed: bool


class Journal:
    """Writes records to standard output, or to a file that a later run can go on with. It is a context manager, because it locks the file.

    `written` are the lines that need no answer; of the `count` records, `failed` are errors; `last` is the file's last record.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        resume: bool = False,
        retry_errors: bool = False,
        ordered: bool = True,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises UsageError for a file that holds something, unless it is to be resumed and holds records of such a run.

        `retry_errors` leaves lines with an error out of `written`. `cancelled` is asked while a full pipe takes no more.
        """
        self.written = Written()
        self.last: OldRecord | None = None
        self.count = self.failed = 0
        self.whole = True  # until a record could not be written
        self._path = path
        self._ordered = ordered
        self._cancelled = cancelled
        self._asked_again: set[int] = set()
        self._superseded = False
        self._file = open_stdout().fileno() if path is None else self._begin(path, resume, retry_errors)
        self._is_file = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._may_be_full = not self._is_file and hasattr(select, "PIPE_BUF")  # Windows lacks it

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._path is None:
            return
        try:
            if self._superseded and self.whole:
                self._remove_superseded(self._path)
        except OSError as error:
            if kind is None:
                hint = "of two records of a line the later one counts; --resume removes the earlier"
                raise TgenError(f"cannot write {self._path}: {error.strerror or error}", hint) from error
        finally:
            os.close(self._file)

    @property
    def highest(self) -> int:
        """The greatest number of a line that has a record, 0 if there is none."""
        return max(self.written.highest, max(self._asked_again, default=0))

    def write(self, number: int, record: bytes, *, failed: bool) -> None:
        """Write the record of a line. Raises TgenError if that fails, and then a file holds no part of the record; BrokenPipeError;
        NobodyReadsError."""
        if self._path is None and is_terminal(sys.stdout):
            write_text(record.decode())
        else:
            self._append(record)
        self.written.add(number)
        if number in self._asked_again:
            self._asked_again.discard(number)
            self._superseded = True
            self.failed -= 1
        else:
            self.count += 1
        self.failed += failed

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        self.whole = False
        try:
            while rest:
                self._wait_for_room()
                rest = rest[os.write(self._file, rest[: select.PIPE_BUF] if self._may_be_full else rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            begun = len(data) - len(rest)
            if begun and self._is_file:
                end = os.lseek(self._file, -begun, os.SEEK_CUR)
                os.ftruncate(self._file, end)
            hint = "all written records are whole" + ("; --resume goes on with it" if self._path else "")
            raise TgenError(f"cannot write {self._path or 'to standard output'}: {error.strerror}", hint) from error
        self.whole = True

    def _wait_for_room(self) -> None:
        """Wait until a pipe takes PIPE_BUF bytes at once: inside a write that blocks, the run would not hear of a first Ctrl-C."""
        turns = 0
        while self._may_be_full and not select.select([], [self._file], [], PATIENCE_SECONDS)[1]:
            turns += self._cancelled()
            if turns > PATIENCE_TURNS:
                raise NobodyReadsError

    def _begin(self, path: Path, resume: bool, retry_errors: bool) -> int:
        """Open the file, and read what it holds."""
        try:
            if resume and path.exists() and not path.is_file():
                raise UsageError(f"--resume needs a plain file as --output, and {path} is not one", "leave --resume out")
            file = self._open(path)
            try:
                if os.fstat(file).st_size:
                    if not resume:
                        raise UsageError(f"--output {path} exists already", RESUME_HINT)
                    self._resume(path, retry_errors)
            except BaseException:
                os.close(file)
                raise
            return file
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}", "name a file in a folder you may write to") from error

    @staticmethod
    def _open(path: Path) -> int:
        """The file, locked before anyone looks at what it holds. Raises OSError; UsageError where another run writes to it."""
        while True:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                lock(file, path)
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # another run has just put a new file in its place

    def _resume(self, path: Path, retry_errors: bool) -> None:
        """Read which lines have a record, and cut off a partial record at the end."""
        failed: set[int] = set()
        with open(path, "rb+") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n") and (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
                    break  # by a kill
                self.last = _old_record(path, line)
                number = self.last.key.number
                if number in self.written:
                    raise UsageError(f"{path} has two records of line {number}", "it was not written by one run; name another file")
                if number in failed:
                    self._superseded = True
                if self.last.failed:
                    failed.add(number)
                else:
                    failed.discard(number)
                    self.written.add(number)
                whole += len(line)
            file.truncate(whole)
        self.count, self.failed = len(self.written) + len(failed), len(failed)
        if retry_errors:
            self._asked_again = failed
        else:
            for number in failed:
                self.written.add(number)

    def _remove_superseded(self, path: Path) -> None:
        """Keep the last record of each line only, in the order of the lines if the run is ordered. A kill leaves the file as it was."""
        places: dict[int, int] = {}
        with open(path, "rb") as file:
            place = 0
            for line in file:
                places[json.loads(line)["line"]] = place
                place += len(line)
            kept = [places[number] for number in sorted(places)] if self._ordered else sorted(places.values())
            write_atomically(path, lambda temporary: _copy_lines(file, kept, temporary))


def _copy_lines(file: BinaryIO, places: list[int], target: Path) -> None:
    with open(target, "wb") as copy:
        for place in places:
            file.seek(place)
            copy.write(file.readline())


def _old_record(path: Path, line: bytes) -> OldRecord:
    try:
        record = json.loads(line)
        number, model = record["line"], (record.get("response") or {"body": record})["body"].get("model")
        if type(number) is int and number > 0:
            return OldRecord(line_key(number, record), model, bool(record.get("error")))
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        pass
    raise UsageError(f"{path} holds something other than records of a batch", "tgen did not change it; name another file")


def count_lines(files: list[Path]) -> int | None:
    """How many lines these files have together; None if one is not a plain file, whose length is unknown until its end."""
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
