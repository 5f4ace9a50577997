"""Command lines run inside the test's own process, for what a process of their own would add nothing to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tgen.cli.main import run


@dataclass(frozen=True)
class Said:
    """What a command line wrote."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Ask(Protocol):
    """Run a command line with these bytes on standard input, and expect an exit code."""

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", code: int = 0) -> Said: ...


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    for name in [name for name in os.environ if name.startswith("TGEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    with ExitStack() as files:

        def ask(*arguments: str | Path, stdin: bytes = b"", code: int = 0) -> Said:
            path = tmp_path / "standard input"
            path.write_bytes(stdin)
            monkeypatch.setattr("sys.stdin", files.enter_context(path.open()))
            found = run([*map(str, arguments)])
            said = Said(*capfd.readouterr())
            assert found == code, said.err
            if code:
                _, *hint = said.err[said.err.index("error: ") :].splitlines()
                if "--json" in arguments and "--" not in arguments:
                    assert json.loads(hint.pop())["error"]["exit_code"] == code
                assert [line[:6] for line in hint] in ([], ["hint: "])
            return said

        yield ask
