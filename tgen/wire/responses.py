"""OpenAI's Responses: reads a request as the body of a chat request, and makes the answer's objects and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tgen.errors import UsageError
from tgen.events import Event, Finished, Piece
from tgen.wire.chunks import Message
from tgen.wire.records import chat_logprobs, finish_reason

RENAMED = {"max_output_tokens": "max_tokens"}
# Keys that change nothing here: tgen stores no answers, and reports no reasoning.
UNHEEDED = frozenset({"include", "reasoning"})
# Keys of the request that the answer repeats, with the values to repeat if the request leaves them out.
REPEATED: dict[str, Any] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True, "reasoning": None, "temperature": None,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None, "truncation": "disabled", "user": None,
}  # fmt: skip
INPUT_HINT = 'it is a text, or a list like [{"role": "user", "content": "Hello"}]'


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the chat request that asks for the same. Raises UsageError."""
    kept = {key: item for key, item in body.items() if key not in UNHEEDED and item is not None}
    if kept.pop("background", False):
        raise UsageError("'background' cannot be honoured", "leave it out")
    messages = _messages(kept.pop("input", None))
    if (instructions := kept.pop("instructions", None)) is not None:
        messages.insert(0, {"role": "system", "content": instructions})
    chat: dict[str, Any] = {RENAMED.get(key, key): item for key, item in kept.items()}
    chat |= _text(chat.pop("text", None)) | _truncation(chat.pop("truncation", None))
    if "tools" in chat:
        chat["tools"] = [_tool(tool) for tool in chat["tools"]] if isinstance(chat["tools"], list) else chat["tools"]
    match chat.get("tool_choice"):
        case {"type": "function", "name": name}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
    if "top_logprobs" in chat:
        chat["logprobs"] = True
    return {**chat, "messages": messages}


def _text(value: Any) -> dict[str, Any]:
    """The format of the text, under its name in a chat request."""
    match value:
        case None:
            return {}
        case {"format": {"type": "json_schema", **schema}}:
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case {"format": format}:
            return {"response_format": format}
        case {"verbosity": _} if len(value) == 1:
            return {}
    raise UsageError("text must be an object with a format", 'for example {"format": {"type": "json_object"}}')


def _truncation(value: Any) -> dict[str, Any]:
    if value not in (None, "auto", "disabled"):
        raise UsageError(f"truncation must be auto or disabled, not {value!r}")
    return {"overflow": "truncate-left"} if value == "auto" else {}


def _tool(value: Any) -> Any:
    """A tool in the form of chat requests. A tool that is no function stays as it is, and is refused as in a chat request."""
    if not isinstance(value, dict) or value.get("type") != "function":
        return value
    return {"type": "function", "function": {key: item for key, item in value.items() if key != "type" and item is not None}}


def _messages(value: Any) -> list[dict[str, Any]]:
    """The messages of an input. Raises UsageError."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise UsageError("input must be a text or a list of messages", INPUT_HINT)
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(value, start=1):
        match item:
            case {"type": "function_call", "call_id": identity, "name": name, "arguments": arguments}:
                call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(call)
            case {"type": "function_call_output", "call_id": identity, "output": output}:
                messages.append({"role": "tool", "tool_call_id": identity, "content": _content(output)})
            case {"role": role, "content": content} if item.get("type", "message") == "message":
                messages.append({"role": role, "content": _content(content)})
            case {"type": "reasoning"}:
                continue
            case _:
                raise UsageError(f"input {number} is not a message that tgen can read", INPUT_HINT)
    return messages


def _content(value: Any) -> Any:
    """A message's content, with the types of its parts named as in a chat request."""
    if not isinstance(value, list):
        return value
    texts = ("input_text", "output_text")
    return [{**part, "type": "text"} if isinstance(part, dict) and part.get("type") in texts else part for part in value]


class ResponseEvents:
    """Makes the events of one response in OpenAI's order. After the last one, `response` is the whole object."""

    def __init__(self, identity: str, created: int, model: str, body: Mapping[str, Any], message: Message) -> None:
        self._sequence = 0
        self._message = message
        self._suffix = identity.partition("_")[2]
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []
        self._open = False
        self._output: list[dict[str, Any]] = []
        repeated = {key: body[key] if body.get(key) is not None else value for key, value in REPEATED.items()}
        self.response: dict[str, Any] = {
            "id": identity, "object": "response", "created_at": created, "model": model, "status": "in_progress", "error": None,
            "incomplete_details": None, "output": [], "previous_response_id": None, "store": False, "usage": None, **repeated,
        }  # fmt: skip

    def begin(self) -> Iterator[dict[str, Any]]:
        """The events before the first text."""
        yield self._event("created", response=self.response)
        yield self._event("in_progress", response=self.response)

    def add(self, event: Event) -> Iterator[dict[str, Any]]:
        """The events that an event of the engine makes."""
        if isinstance(event, Piece):
            text, calls = self._message.feed(event.text)
            yield from self._said(text, chat_logprobs(event.tokens)["content"])
            for call in calls:
                yield from self._called(call)
        elif isinstance(event, Finished):
            text, calls = self._message.end(event)
            yield from self._said(text, [])
            for call in calls:
                yield from self._called(call)
            if not self._output and not self._open:
                yield from self._opened()
            yield from self._closed()
            if finish_reason(event) == "length":
                self.response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    def end(self, usage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The last event, with the whole response."""
        status = "incomplete" if self.response["status"] == "incomplete" else "completed"
        counted = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
                "cache_write_tokens": 0,
            },
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        self.response = {**self.response, "status": status, "output": self._output, "usage": counted}
        yield self._event(status, response=self.response)

    def _said(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not text and not logprobs:
            return
        if not self._open:
            yield from self._opened()
        self._text += text
        self._logprobs += logprobs
        yield self._event("output_text.delta", **self._place(), delta=text, logprobs=logprobs)

    def _opened(self) -> Iterator[dict[str, Any]]:
        self._open, self._text, self._logprobs = True, "", []
        yield self._event("output_item.added", output_index=len(self._output), item=self._item("in_progress", []))
        yield self._event("content_part.added", **self._place(), part=self._part())

    def _closed(self) -> Iterator[dict[str, Any]]:
        """Close the message, if there is an open one."""
        if not self._open:
            return
        self._open = False
        yield self._event("output_text.done", **self._place(), text=self._text, logprobs=self._logprobs)
        yield self._event("content_part.done", **self._place(), part=self._part())
        item = self._item("completed", [self._part()])
        yield self._event("output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)

    def _called(self, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._closed()
        index, function = len(self._output), call["function"]
        item = {"id": f"fc_{self._suffix}{index}", "type": "function_call", "call_id": call["id"], "name": function["name"]}
        place = {"item_id": item["id"], "output_index": index}
        yield self._event("output_item.added", output_index=index, item={**item, "arguments": "", "status": "in_progress"})
        yield self._event("function_call_arguments.delta", **place, delta=function["arguments"])
        yield self._event("function_call_arguments.done", **place, name=function["name"], arguments=function["arguments"])
        done = {**item, "arguments": function["arguments"], "status": "completed"}
        yield self._event("output_item.done", output_index=index, item=done)
        self._output.append(done)

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        self._sequence += 1
        return {"type": f"response.{kind}", "sequence_number": self._sequence - 1, **values}

    def _place(self) -> dict[str, Any]:
        return {"item_id": f"msg_{self._suffix}{len(self._output)}", "output_index": len(self._output), "content_index": 0}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._place()["item_id"], "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": self._logprobs}
