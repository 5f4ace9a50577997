"""A person at a real terminal, and chat models to talk to."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cli.processes import TIMEOUT, environment, running
from tests.conftest import GOLDEN

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token if m.role == 'assistant' }}\n{% endfor %}assistant:"
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
# Random text without end tokens, the same every time.
OPTIONS = "--temperature 0 -n 6 --color never".split()


def chat_model(folder: Path, template: str = TEMPLATE) -> Path:
    """A golden with a long context and a chat template."""
    shutil.copytree(GOLDEN / "llama2", folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4000}))
    (folder / "chat_template.jinja").write_text(template)
    return folder


ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78])|\x1b[()]B")


class Terminal:
    """A person at a terminal, who waits for what is shown before typing on."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.master = master
        self.raw = ""
        self.shown = ""  # for a terminal that can move its cursor, without what moves it
        self._seen = 0
        self._prompts = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """Read until this is shown, after what was waited for last."""
        end = time.monotonic() + TIMEOUT
        while not (found := re.search(pattern, self.shown[self._seen :])):
            self._read(end, pattern)
        self._seen += found.end()
        return found.group()

    def wait_for_prompt(self) -> None:
        """Read until one more line can be edited: the terminal is then asked to tell what is pasted."""
        self._prompts += 1
        end = time.monotonic() + TIMEOUT
        while self.raw.count("\x1b[?2004h") < self._prompts or termios.tcgetattr(self.master)[3] & termios.ICANON:
            self._read(end, "prompt")
        self._seen = len(self.shown)

    def _read(self, end: float, wanted: str) -> None:
        """Read what has been written, and wait a moment if nothing has."""
        assert time.monotonic() < end, f"{wanted!r} is not in {self.shown[self._seen :]!r}"
        ready, _, _ = select.select([self.master], [], [], 0.05)
        if ready:
            try:
                self.raw += self._decoder.decode(os.read(self.master, 65536))
            except OSError:  # the process has ended
                raise AssertionError(f"{wanted!r} is not in {self.shown[self._seen :]!r}") from None
            self.shown = ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Press keys, as the terminal sends them. A long text goes in parts, for a terminal holds only a few of its kilobytes."""
        data = text.encode()
        while data:
            select.select([], [self.master], [], TIMEOUT)
            data = data[os.write(self.master, data[:512]) :]


def own_terminal() -> None:
    """Make the terminal at standard output this process's own: Ctrl-C reaches only whom the terminal belongs to."""
    import fcntl

    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def terminal(*arguments: str, piped: str | None = None, columns: int = 80, patch: str = "", **changes: str) -> Iterator[Terminal]:
    """A process of tgen whose terminal is a person's; `piped` is its standard input, in place of the terminal.

    The code of `patch` runs in it first.
    """
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    if patch:
        arguments = ("-c", f"{patch}\nfrom tgen.__main__ import main\nmain()", *arguments)
        streams["executable"] = sys.executable
    if piped is not None:
        streams["stdin"] = subprocess.PIPE

    env = environment(**{"TERM": "dumb", **changes})
    with running(*arguments, env=env, start_new_session=True, preexec_fn=own_terminal, **streams) as process:
        os.close(slave)
        if process.stdin is not None:
            process.stdin.write((piped or "").encode())
            process.stdin.close()
        try:
            yield Terminal(process, master)
        finally:
            os.close(master)
