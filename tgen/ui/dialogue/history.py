"""The messages that a person typed, kept for the arrow keys and the search of the next conversation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import FileHistory

from tgen.files import write_atomically

MOST_BYTES = 2**20


class KeptHistory(FileHistory):
    """A file to which each message is added at once. A file that cannot be read or written costs the history, not the conversation."""

    def __init__(self, path: Path) -> None:
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_size > MOST_BYTES:
                _halve(path)
        super().__init__(str(path))

    def load_history_strings(self) -> Iterable[str]:
        """The messages, the newest first."""
        with suppress(OSError):
            return super().load_history_strings()
        return []

    def store_string(self, string: str) -> None:
        """Add a message."""
        with suppress(OSError):
            super().store_string(string)


def _halve(path: Path) -> None:
    """Leave out the older half of the messages, each of which begins with a line that starts with #."""
    data = path.read_bytes()
    start = data.find(b"\n#", len(data) // 2)

    def write(temporary: Path) -> None:
        temporary.write_bytes(data[start:])

    write_atomically(path, write, shared=True)


def history_file() -> Path | None:
    """The file, where XDG has such files; None for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return Path(state) / "tgen" / "chat_history" if os.path.isabs(state) else None
