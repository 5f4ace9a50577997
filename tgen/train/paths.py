"""Checks that the files of a training run exist, before anything that takes time, such as the import of torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tgen.errors import UsageError
from tgen.ui.input import STDIN

TEXTS_HINT = "give text files, .jsonl files, or - for standard input"
PAIRS_HINT = "--pairs takes a file of source<TAB>target lines"


def check_files(texts: Iterable[str], pairs: Path | None) -> None:
    """Raise UsageError for a file that does not exist; `-` among texts means standard input."""
    for name in texts:
        if name != STDIN:
            check_file(name, TEXTS_HINT)
    if pairs is not None:
        check_file(str(pairs), PAIRS_HINT)


def check_file(name: str, hint: str) -> None:
    """Raise UsageError with this hint unless there is such a file."""
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{name} is a folder, not a file", hint)
    if not path.exists():
        raise UsageError(f"no such file: {name}", hint)
