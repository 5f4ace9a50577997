"""Asks a model many things at once, through `tgen batch`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Request = dict[str, Any]


def understands_chats(folder: Path) -> bool:
    """Whether the folder has a chat template."""
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (config.exists() and "chat_template" in json.loads(config.read_text("utf-8")))


def request(content: str, chat: bool, **options: object) -> Request:
    """One line for `tgen batch`: a message, or a prompt for a model that only continues texts. Nothing said is an empty prompt."""
    if chat and content:
        return {"messages": [{"role": "user", "content": content}], **options}
    return {"prompt": content and f"{content}\n\n", **options}


def answers(folder: Path, requests: Sequence[Request], *options: str) -> list[str]:
    """The text that the model writes for each request, "" where it fails; `options` are those of `tgen batch`.

    Raises CalledProcessError where the whole batch fails.
    """
    lines = "".join(json.dumps(one) + "\n" for one in requests)
    command = [sys.executable, "-m", "tgen", "batch", "--model", str(folder), *options]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode not in (0, 7):  # 7: some lines failed
        done.check_returncode()
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [text_of(record).strip() for record in records]


def text_of(record: dict[str, Any]) -> str:
    """What stands in one record of the output: a text, or the message that answers messages; nothing in one of an error."""
    (choice, *_) = record.get("choices") or [{"text": ""}]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])
