"""A conversation to the text and the ids that a chat model was trained on, through the folder's chat template. Knows no terminal.

The template is rendered by `sandbox.py` in a process of its own, for it is code that came with the model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tgen.errors import CheckpointError, TgenError, UsageError
from tgen.files import read_optional_json, refuse_lfs_pointer
from tgen.text.control import Controls
from tgen.text.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]
SANDBOX = Path(__file__).with_name("sandbox.py")
MAX_BYTES = 2**20
SECONDS = 8  # more than the sandbox allows itself: its own answer names the line
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MESSAGES_HINT = 'it must be a list like [{"role": "user", "content": "Hello"}]'
HINT = "correct it, or download the file again; `tgen generate` without --chat does without a template"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template as the folder has it: its source, where that stands, and the special tokens it may name."""

    source: str
    place: str
    tokens: dict[str, str]

    def render(self, *conversations: Sequence[Message]) -> list[str]:
        """Each conversation as text that the assistant is to go on with.

        Raises UsageError with the template's own words if it refuses a conversation, CheckpointError for a template that does not work.
        """
        request = {
            "template": self.source,
            "variables": self.tokens,
            "conversations": [list(map(asdict, messages)) for messages in conversations],
        }
        answer = self._ask(json.dumps(request).encode())
        if answer.get("refused"):
            raise UsageError(f"the model's chat template refuses this conversation: {answer['error']}", "the model has no use for it")
        if "texts" not in answer:
            line = f", line {answer['line']}" if answer.get("line") else ""
            raise CheckpointError(f"{self.place}{line}: {answer['error']}", HINT)
        texts: list[str] = answer["texts"]
        return texts

    def encode(self, tokenizer: Tokenizer, *conversations: Sequence[Message]) -> list[list[int]]:
        """Each conversation as ids; what the template writes becomes control tokens, what the messages say never does.

        The tokenizer adds no start token: the template has written it, if the model wants one.
        """
        controls = Controls(tokenizer, self.source)
        marked = [[Message(m.role, controls.mark(m.content, m.role)) for m in messages] for messages in conversations]
        return [controls.encode(text) for text in self.render(*marked)]

    def _ask(self, request: bytes) -> dict[str, Any]:
        try:
            # -P: files beside the sandbox must not be taken for modules of the standard library.
            # In a session of its own: a Ctrl-C is for this process to obey, and no fault of the template's.
            done = subprocess.run(
                [sys.executable, "-P", SANDBOX], input=request, capture_output=True, timeout=SECONDS, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            return {"error": f"it takes longer than {SECONDS} seconds"}
        except OSError as error:
            raise TgenError(f"cannot start the process for the chat template: {error.strerror or error}") from error
        if b"No module named 'jinja2'" in done.stderr:
            raise TgenError("chat templates need the jinja2 package, which is not installed", "pip install jinja2")
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            return {"error": "it made the process that renders it fail, most likely for want of memory"}
        return answer


def find_template(folder: Path) -> ChatTemplate | None:
    """A folder's chat template: chat_template.jinja, else the default one in tokenizer_config.json; None if it has none.

    Raises CheckpointError for one that cannot be read.
    """
    config = read_optional_json(folder / "tokenizer_config.json")
    tokens = _special_tokens(folder, config)
    path = folder / "chat_template.jinja"
    if path.exists():
        return ChatTemplate(_read(path), str(path), tokens)
    found = config.get("chat_template")
    place = f"{folder / 'tokenizer_config.json'}: chat_template"
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        if "default" not in named:
            raise CheckpointError(f"{place} has no entry named default", f"it has: {', '.join(map(str, named)) or 'none'}")
        found = named["default"]
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{place} is neither text nor a list of names and templates", HINT)
    return None if found is None else ChatTemplate(found, place, tokens)


def _special_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """The special tokens by name. Like in transformers, special_tokens_map.json counts only for folders of the older kind."""
    values = config if "added_tokens_decoder" in config else config | read_optional_json(folder / "special_tokens_map.json")
    tokens = {}
    for name in TOKENS:
        value = values.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def _read(path: Path) -> str:
    if not path.is_file():  # a pipe or a device might never end
        raise CheckpointError(f"{path} is not a file", HINT)
    refuse_lfs_pointer(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB, which no template is", HINT)
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 at byte {error.start}", HINT) from error


def read_messages(value: Any, place: str = "") -> list[Message]:
    """Messages from JSON, [{role, content}]; `place` goes before what is wrong with them. Raises UsageError."""
    if not isinstance(value, list):
        raise UsageError(f"{place}there is no list of messages", MESSAGES_HINT)
    return [_message(place, number, entry) for number, entry in enumerate(value, start=1)]


def _message(place: str, number: int, entry: Any) -> Message:
    content = _content(entry.get("content")) if isinstance(entry, dict) else None
    if content is None:
        raise UsageError(f"{place}message {number} has no text as its content", 'each is {"role": ..., "content": "text"}')
    role: Role | None = next((role for role in get_args(Role) if role == entry.get("role")), None)
    if role is None or (role == "system" and number > 1):
        hint = "roles are user and assistant, and system for the first message"
        raise UsageError(f"{place}message {number} has the role {entry.get('role')!r}", hint)
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{place}message {number} holds half a surrogate pair, which is no character", "correct it") from error
    return Message(role, content)


def _content(value: Any) -> str | None:
    """A text, or the texts of a list of parts; None for what holds anything else."""
    if isinstance(value, list) and value:
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(value) else None
    return value if isinstance(value, str) else None
