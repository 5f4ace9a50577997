"""Runs command lines through a warm worker, and judges how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cli.processes import environment
from tests.fuzz.worker import SPRUNG

SECONDS, MEMORY = 10.0, 2 * 2**30
LONGEST_LINE = 1000  # characters of a message, folder names included
REFUSALS = (2, 3, 4, 5)
# What the tokenizers library writes when a pattern tries too many ways to match a text. Which text that is cannot be known before, and the
# library writes before Python hears of it; to point standard error elsewhere meanwhile would lose what other threads write there.
PANIC = re.compile(
    r"\nthread '[^']*' \(\d+\) panicked at \S*onig\S*:\nOnig: Regex search error: retry-limit-in-match over\n"
    r"(stack backtrace:\n(?:.*\n)*?)?(note: .*\n)?(?=error: the tokenizer cannot read this text)"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended. `killed` says why where it did not end by itself; `memory` is bytes beyond the idle worker's."""

    code: int
    killed: str | None
    seconds: float
    memory: int
    out: bytes
    err: str


class Worker:
    """One warm process; a context manager. Command lines run one at a time, each in a child of it."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the files that stand in for the standard streams."""
        self._streams = [folder / name for name in ("in", "out", "err")]
        arguments = [sys.executable, "-m", "tests.fuzz.worker"]
        variables = environment(TOKENIZERS_PARALLELISM="false")
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def run(self, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None) -> Ended:
        """Run `tgen` with these arguments; `variables` are the whole environment if given."""
        self._streams[0].write_bytes(stdin)
        answer = self._ask(arguments, list(map(str, self._streams)), variables)
        out, err = self._streams[1].read_bytes(), self._streams[2].read_bytes().decode("utf-8", "backslashreplace")
        return Ended(**answer, out=out, err=err)

    def on_terminal(self, *arguments: str, columns: int = 80, variables: Mapping[str, str] | None = None) -> Ended:
        """The same with one terminal as all three streams; everything that reaches it is in `out`."""
        master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        shown: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(master, shown))
        reader.start()
        answer = self._ask(arguments, [os.ttyname(slave)] * 3, variables)
        os.close(slave)
        reader.join()
        os.close(master)
        return Ended(**answer, out=b"".join(shown).replace(b"\r\n", b"\n"), err="")

    def _ask(self, arguments: Sequence[str], streams: list[str], variables: Mapping[str, str] | None) -> dict[str, Any]:
        request = {
            "arguments": arguments,
            "streams": streams,
            "environment": environment(TGEN_CACHE_GB="0") if variables is None else dict(variables),
            "seconds": SECONDS,
            "memory": MEMORY,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the worker has died"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _read_all(master: int, shown: list[bytes]) -> None:
    """Everything until the other side is closed, which Linux calls an error."""
    with contextlib.suppress(OSError):
        while block := os.read(master, 65536):
            shown.append(block)


def verdict(ended: Ended, *, refused: bool = False, codes: tuple[int, ...] = REFUSALS) -> str | None:
    """What is wrong with how a command line ended; None if nothing is. `refused` says that to do as told would be wrong."""
    if ended.killed is not None:
        return ended.killed
    if ended.code == 3:
        ended = replace(ended, err=PANIC.sub("", ended.err))
    lines = ended.err.splitlines()
    if SPRUNG in ended.err:
        return ended.err[ended.err.index(SPRUNG) :].splitlines()[0]
    if ended.code < 0:
        return f"died of signal {-ended.code}"
    if "Traceback" in ended.err or "panicked" in ended.err:
        return "ends in a traceback"
    if ended.memory > MEMORY:
        return "takes too much memory"
    if any(len(line) > LONGEST_LINE for line in lines):
        return "says too much in one line"
    if ended.code == 0:
        return "does what it should have refused" if refused else _wrong_text(ended, lines)
    damaged = ended.code == 1 and "the model's numbers are not finite" in ended.err
    if ended.code not in codes and not damaged:
        return f"ends with exit code {ended.code}"
    if lines and lines[-1].startswith('{"error": '):  # what --json adds
        del lines[-1]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if len(errors) != 1 or not all(line.startswith("hint: ") for line in lines[errors[0] + 1 :]) or len(lines) > errors[0] + 2:
        return "ends without one clear error"
    if ended.code in REFUSALS and lines[-1][:6] != "hint: ":
        return "gives no hint"
    return None


def _wrong_text(ended: Ended, lines: list[str]) -> str | None:
    if not all(re.match(r"(warning|note): |seed \d+$", line) for line in lines):
        return "says something that is no message"
    try:
        ended.out.decode("utf-8")
    except UnicodeDecodeError:
        return "writes what is not UTF-8"
    return None
