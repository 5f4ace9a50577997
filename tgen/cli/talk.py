"""Files of a conversation's messages, which `/save` writes and `/load` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tgen.errors import UsageError
from tgen.files import write_text
from tgen.tasks.talk import message_record
from tgen.text.chat import MESSAGES_HINT, Message, read_messages

MOST_BYTES = 100 * 2**20


def save_messages(path: Path, messages: Sequence[Message]) -> None:
    """Write messages as JSON, [{role, content}]. Raises UsageError if the file cannot be written, or holds something else already."""
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size):
            load_messages(path)
    except UsageError as error:
        raise UsageError(f"{path} exists already and holds no conversation", "name another file") from error
    except OSError:
        pass  # the attempt to write will report the fault
    try:
        write_text(path, json.dumps(list(map(message_record, messages)), ensure_ascii=False, indent=1) + "\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot write {path}: {reason}", "name a file in a folder you may write to") from error


def load_messages(path: Path) -> list[Message]:
    """Read a file of messages. Raises UsageError, saying what is wrong with it."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file", "name a file that /save wrote")
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES // 2**20} MiB", MESSAGES_HINT)
        value = json.loads(path.read_bytes(), parse_int=float)  # Python refuses very long whole numbers; messages have none
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", MESSAGES_HINT) from error
    return read_messages(value, f"{path}: ")
