"""Turns a conversation into the text and the ids that a chat model was trained on, through the folder's chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tgen.errors import CheckpointError, UsageError
from tgen.files import read_optional_json, refuse_constant, refuse_lfs_pointer
from tgen.gguf_header import read_header
from tgen.text.control import Controls
from tgen.text.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant", "tool"]
# How a rendered conversation goes on: with a new answer, not at all, or within its last message.
Ending = Literal["answer", "finished", "continued"]
MAX_BYTES = 2**20
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
RESERVED = frozenset({"messages", "add_generation_prompt", "tools", "documents", "raise_exception", "strftime_now", *TOKENS})
# The roles whose content the template gets as a list of parts, in the order of the trials: most templates want texts.
FORMS: tuple[frozenset[str], ...] = tuple(
    map(frozenset, [(), get_args(Role), ("user", "assistant"), ("user", "system"), ("user",)]),
)
MESSAGES_HINT = 'it must be a list like [{"role": "user", "content": "Hello"}]'
HINT = "correct it, or download the file again; `tgen generate` without --chat does without a template"


class _EndlessError(CheckpointError):
    """A template that takes too many steps or too much memory. It is not tried in another form, which would take as long again."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `extra` is what a template gets beside the text: tool_calls, tool_call_id, name."""

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A folder's chat template: its source, the place of that source, the special tokens it may name, and arguments for its variables.

    `tools` are the functions that the model may call.
    """

    source: str
    place: str
    tokens: dict[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    ending: Ending = "answer"

    def with_arguments(self, arguments: Mapping[str, Any]) -> ChatTemplate:
        """The same template with values for variables of its own, such as enable_thinking; they override those that it has already.

        Raises UsageError for a variable that the template never mentions, or that is not for the user to set.
        """
        for name in arguments:
            if name in RESERVED:
                raise UsageError(f"the template argument {name!r} is set by tgen itself", "leave it out")
            if not (name.isidentifier() and re.search(rf"\b{name}\b", self.source)):
                raise UsageError(f"the model's chat template has no variable {name!r}", self._variables_hint())
        return replace(self, arguments={**self.arguments, **arguments})

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> ChatTemplate:
        """The same template with functions that the model may call. Raises UsageError for a template that has no place for them."""
        if tools and not re.search(r"\btools\b", self.source):
            raise UsageError("the model's chat template takes no tools", "leave tools out, or use a model that was trained to call them")
        return replace(self, tools=tools)

    def render(self, *conversations: Sequence[Message], extra: Mapping[str, Any] | None = None) -> list[str]:
        """Each conversation as text that the assistant is to go on with; `extra` is as in `with_arguments`.

        Raises UsageError, with the template's own words, if it refuses a conversation, and if it drops the text of a user or system
        message; CheckpointError for a template that does not work.
        """
        template = self.with_arguments(extra) if extra else self
        return [template._render(messages) for messages in conversations]

    def encode(self, tokenizer: Tokenizer, *conversations: Sequence[Message], extra: Mapping[str, Any] | None = None) -> list[list[int]]:
        """Each conversation as ids; what the template writes becomes control tokens, what the messages say never does.

        The tokenizer adds no start token: the template has written it, if the model wants one.
        """
        controls = Controls(tokenizer, self.source)
        marked = [
            [Message(m.role, controls.mark(m.content, m.role), controls.mark_all(m.extra, m.role)) for m in messages]
            for messages in conversations
        ]
        template = replace(self, tools=controls.mark_all(self.tools, "system")) if self.tools else self
        return [controls.encode(text) for text in template.render(*marked, extra=extra)]

    def _render(self, messages: Sequence[Message]) -> str:
        text = self._text(messages, self._form(messages))
        for number, message in enumerate(messages, start=1):
            if message.role != "assistant" and not _holds(text, message.content):
                raise _left_out(number, message)
        return _until_last(text, messages[-1]) if self.ending == "continued" else text

    def _form(self, messages: Sequence[Message]) -> Collection[str]:
        """The roles whose content the template wants as parts: the first of FORMS in which it writes every message.

        The trial messages are words that occur nowhere else. If the template fails in every form, raises
        the error of the first; if it works in some, but leaves out a message in each of these, raises UsageError about that message.
        """
        trial = [
            message if "tool_calls" in message.extra else replace(message, content=f"message{number}of{len(messages)}")
            for number, message in enumerate(messages, start=1)
        ]
        failed: UsageError | CheckpointError | None = None
        left_out: UsageError | None = None
        for form in FORMS:
            try:
                text = self._text(trial, form)
            except _EndlessError:
                raise
            except (UsageError, CheckpointError) as error:
                failed = failed or error
                continue
            lost = [(n, m) for n, m in enumerate(trial, start=1) if m.role != "assistant" and m.content not in text]
            if not lost:
                return form
            left_out = left_out or _left_out(*lost[0])
        raise left_out or failed or AssertionError("no form was tried")

    def _text(self, messages: Sequence[Message], form: Collection[str]) -> str:
        from tgen.text.rendering import BrokenTemplateError, EndlessTemplateError, RefusalError, render

        said = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if m.role in form else m.content, **m.extra} for m in messages
        ]
        given = {"messages": said, "tools": list(self.tools) or None, "documents": None, "add_generation_prompt": self.ending == "answer"}
        values = {**self.tokens, **self.arguments, **given}
        try:
            return render(self.source, values)
        except RefusalError as refusal:
            raise UsageError(
                f"the model's chat template refuses this conversation: {refusal}", "change the messages so that the template accepts them"
            ) from refusal
        except BrokenTemplateError as error:
            kind = _EndlessError if isinstance(error, EndlessTemplateError) else CheckpointError
            raise kind(f"{self.place}{f', line {error.line}' if error.line else ''}: {error}", HINT) from error

    def _variables_hint(self) -> str:
        from tgen.text.rendering import variables

        names = sorted(variables(self.source) - RESERVED - {"range", "namespace", "dict", "cycler", "joiner", "lipsum"})
        return f"its variables are {', '.join(names)}" if names else "it has no variables that can be set"


def _holds(text: str, content: str) -> bool:
    """Whether a text holds a message's content, as text or as JSON. White space does not count: templates strip and replace it."""
    whole = "".join(text.split())
    return any("".join(form.split()) in whole for form in (content, json.dumps(content, ensure_ascii=False)[1:-1]))


def _left_out(number: int, message: Message) -> UsageError:
    if message.role == "system":
        return UsageError("the model's chat template leaves out the system message", "say it in the first message instead")
    return UsageError(
        f"the model's chat template leaves out what the user says in message {number}",
        "correct the template, or use `tgen generate` without --chat",
    )


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Template arguments from words like `enable_thinking=false`; a value that is not JSON is a text. Raises UsageError."""
    arguments = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise UsageError(f"--template-arg {word!r} is not KEY=VALUE", "for example --template-arg enable_thinking=false")
        arguments[name] = _value(name, value)
    return arguments


def _value(name: str, text: str) -> Any:
    try:
        text.encode("utf-8")
        value = json.loads(text, parse_constant=refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"--template-arg {name} holds half a surrogate pair, which is no character", "correct it") from error
    except RecursionError as error:
        raise UsageError(f"--template-arg {name} is nested too deeply", "give a simpler value") from error
    except ValueError:
        return text
    return value


def no_template(name: str) -> UsageError:
    """The error of a command that needs a chat template, for a model without one."""
    message = f"{name} has no chat template: it continues texts and was not made for conversation"
    return UsageError(message, "use `tgen generate` without --chat, or give a chat model with --model")


def find_template(folder: Path) -> ChatTemplate | None:
    """A folder's chat template: chat_template.jinja, else the default one in tokenizer_config.json; None if it has none.

    For a GGUF file, that of its metadata. Raises CheckpointError for one that cannot be read.
    """
    if folder.is_file():
        from tgen.text.files.gguf import TEMPLATE, gguf_settings

        header = read_header(folder)
        text = header.text(TEMPLATE)
        if text is not None and len(text) > MAX_BYTES:
            raise CheckpointError(f"{folder} has a chat template larger than {MAX_BYTES // 2**20} MiB, too large for one", HINT)
        place, tokens = f"{folder}: {TEMPLATE}", gguf_settings(header).values
        return None if text is None else ChatTemplate(text, place, {name: tokens[name] for name in TOKENS if name in tokens})
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
    return None if found is None else ChatTemplate(found.removeprefix("\ufeff"), place, tokens)


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
            raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB, too large for a template", HINT)
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 at byte {error.start}", HINT) from error


def _until_last(text: str, last: Message) -> str:
    """A conversation without what its template writes behind the last message. Raises UsageError."""
    said = last.content.strip()
    place = text.rfind(said) if said and last.role == "assistant" else -1
    if place < 0:
        raise UsageError("continue_final_message needs a last message of the assistant, with a text", "leave it out, or add the message")
    kept = last.content.lstrip()
    return text[: place + len(kept if text[place:].startswith(kept) else said)]


def read_messages(value: Any, place: str = "") -> list[Message]:
    """Messages from JSON, [{role, content}]; `place` goes before what is wrong with them. Raises UsageError."""
    if not isinstance(value, list):
        raise UsageError(f"{place}there is no list of messages", MESSAGES_HINT)
    return [_message(place, number, entry) for number, entry in enumerate(value, start=1)]


def _message(place: str, number: int, entry: Any) -> Message:
    extra = _extra(place, number, entry) if isinstance(entry, dict) else {}
    content = _content(entry.get("content")) if isinstance(entry, dict) else None
    if content is None and "tool_calls" in extra and entry.get("content") is None:
        content = ""
    if content is None:
        raise UsageError(f"{place}message {number} has no text as its content", 'each is {"role": ..., "content": "text"}')
    named = "system" if entry.get("role") == "developer" else entry.get("role")
    role: Role | None = next((role for role in get_args(Role) if role == named), None)
    if role is None or (role == "system" and number > 1):
        hint = "roles are user, assistant and tool, and system for the first message"
        raise UsageError(f"{place}message {number} has the role {entry.get('role')!r}", hint)
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{place}message {number} holds half a surrogate pair, which is no character", "correct it") from error
    return Message(role, content, extra)


def _extra(place: str, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a template gets beside a message's text; the arguments of a call become an object, as transformers wants them."""
    extra = {name: entry[name] for name in ("tool_call_id", "name") if isinstance(entry.get(name), str)}
    calls = entry.get("tool_calls")
    if not calls:
        return extra
    made = []
    for call in calls if isinstance(calls, list) else [None]:
        match call:
            case {"id": str(identity), "function": {"name": str(name), "arguments": str() | dict() as arguments}}:
                function = {"name": name, "arguments": _arguments(arguments)}
                made.append({"id": identity, "type": "function", "function": function})
            case _:
                hint = 'each call is {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'
                raise UsageError(f"{place}message {number} has tool_calls that cannot be read", hint)
    return {**extra, "tool_calls": made}


def _arguments(value: str | dict[str, Any]) -> Any:
    """The arguments of a call as an object; a text that holds none stays as it is."""
    try:
        found = json.loads(value, parse_constant=refuse_constant) if isinstance(value, str) else value
        json.dumps(found, ensure_ascii=False).encode()  # an error for half a surrogate pair, which is no character
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, dict) else value


def _content(value: Any) -> str | None:
    """A text, or the texts of a list of parts; None for what holds anything else."""
    if isinstance(value, list) and value:
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(value) else None
    return value if isinstance(value, str) else None
