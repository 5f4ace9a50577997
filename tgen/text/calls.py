"""Separates calls of functions from the text that a model writes, by the marks that its chat template knows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tgen.text.call_forms import Call, Functions, read_calls

# The marks around calls. Special tokens among them are no part of the text, so whoever feeds a reader adds them (`CallReader.marks`).
MARKS = {
    "<tool_call>": "</tool_call>",  # Hermes, Qwen, GLM, Granite 4, SmolLM3, EXAONE and most others
    "<seed:tool_call>": "</seed:tool_call>",
    "<tool_calls>": "</tool_calls>",  # Hunyuan
    "<function_calls>": "</function_calls>",  # OLMo 3
    "<TOOLCALL>": "</TOOLCALL>",  # Nemotron
    "<|tool_call_start|>": "<|tool_call_end|>",  # LFM2, MiniCPM 3
    "<|tool_call|>": "<|/tool_call|>",  # Phi-4-mini, Granite 3
    "<|tools_prefix|>": "<|tools_suffix|>",  # Apertus
    "<|START_ACTION|>": "<|END_ACTION|>",  # Command
    "<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>",  # DeepSeek
}
COMMON = {"<tool_call>": "</tool_call>"}
# Qwen3-Coder often leaves out the mark before this one, which is a part of the call.
BARE, BARE_END = "<function=", "</function>"
# The marks of gpt-oss: a header, in which a channel and a recipient stand, and a body. https://developers.openai.com/cookbook/articles/openai-harmony
START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
HARMONY = (START, CHANNEL, CONSTRAIN, MESSAGE, "<|end|>", "<|call|>", "<|return|>")
_HARMONY = re.compile(f"({'|'.join(map(re.escape, HARMONY))})")
_RECIPIENT = re.compile(r"\bto=functions\.([\w.-]+)")

# Other special tokens within calls.
_WITHIN = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")

Found = tuple[str, list[Call]]


class TaggedCalls:
    """Calls between tags, with text before, between and after them; white space beside a call is no part of the text."""

    def __init__(self, functions: Functions, marks: Mapping[str, str] = COMMON) -> None:
        """`marks` maps each mark that begins calls to the one that ends them."""
        self.marks = frozenset({*marks, *marks.values(), *_WITHIN})
        self._functions = functions
        self._ends = dict(marks)
        self._begins = re.compile("|".join(map(re.escape, marks)))
        self._tag = ""  # the mark that began the current call
        self._held = ""  # what may be the beginning of a mark
        self._inside: str | None = None  # the text since the last tag that began a call
        self._blank = ""  # white space that belongs to the text only if more text follows
        self._called = False

    def feed(self, text: str) -> Found:
        """The text and the calls that are complete after this piece."""
        shown: list[str] = []
        calls: list[Call] = []
        while True:
            if self._inside is None:
                text = self._held + text
                found = self._begins.search(text)
                said = text[: found.start()] if found else self._without_start(text)
                self._held = "" if found else text[len(said) :]
                shown.append(self._spaced(said))
                if not found:
                    return "".join(shown), calls
                self._tag, self._inside, text = found[0], "", text[found.end() :]
            self._inside += text
            body, end, text = self._inside.partition(self._ends[self._tag])
            if not end:
                return "".join(shown), calls
            self._close(body, shown, calls)

    def flush(self, written: str = "") -> Found:  # noqa: ARG002
        """What was held back, when no more text will come. A model may end without the last tag."""
        shown: list[str] = []
        calls: list[Call] = []
        if self._inside is not None:
            self._close(self._inside, shown, calls)
        else:
            shown.append(self._spaced(self._held))
            shown.append("" if self._called else self._blank)
        return "".join(shown), calls

    def _spaced(self, text: str) -> str:
        """The text, after white space that was held back before it; white space at its own end is held back in turn."""
        kept = text.rstrip()
        if not kept:
            self._blank += text
            return ""
        said = kept.lstrip() if self._called else self._blank + kept
        self._called, self._blank = False, text[len(kept) :]
        return said

    def _close(self, body: str, shown: list[str], calls: list[Call]) -> None:
        self._inside = None
        whole = f"{self._tag}{body}{self._ends[self._tag]}"
        found = read_calls(whole if self._tag == BARE else body, self._functions)
        blank, self._blank = self._blank, ""
        if found is None:
            shown.append(f"{blank}{whole}")
            return
        self._called = True
        calls += found

    def _without_start(self, text: str) -> str:
        """The text without an end that may be the beginning of a mark."""
        half = max(length for mark in self._ends for length in range(len(mark)) if text.endswith(mark[:length]))
        return text[: len(text) - half]


class WholeCalls:
    """Calls that are all the text: JSON, or names before [ARGS]. Text that begins otherwise is let through at once."""

    def __init__(self, functions: Functions, *, hold: bool = False) -> None:
        """With `hold`, every text is kept back until its end, because its beginning does not tell whether it is a call."""
        self.marks: frozenset[str] = frozenset()
        self._functions = functions
        self._hold = hold
        self._held = ""
        self._is_text = False

    def feed(self, text: str) -> Found:
        """The text that cannot be a call."""
        if self._is_text:
            return text, []
        self._held += text
        start = self._held.lstrip()
        if self._hold or not start or start[0] in "{[" or "<|python_tag|>".startswith(start[:14]):
            return "", []
        self._is_text = True
        return self._held, []

    def flush(self, written: str = "") -> Found:
        """The calls, if all of the text is calls; else the text. `written` is the text with its special tokens."""
        if self._is_text:
            return "", []
        for text in (self._held, written):
            if calls := read_calls(text, self._functions):
                return "", calls
        return self._held, []


class ChannelCalls:
    """What gpt-oss says in its channels: the text of all but `analysis`, and calls, whose headers name a function as their recipient."""

    def __init__(self, functions: Functions) -> None:
        self.marks = frozenset(HARMONY)
        self._functions = functions
        self._header: str | None = None  # the header, as far as it has come
        self._callee: str | None = None  # the function whose arguments are being written
        self._arguments = ""
        self._silent = False  # whether what comes is reasoning

    def feed(self, text: str) -> Found:
        """The text and the calls that are complete after this piece, which has whole marks."""
        shown: list[str] = []
        calls: list[Call] = []
        for part in _HARMONY.split(text):
            if part in self.marks:
                self._mark(part, shown, calls)
            elif self._header is not None:
                self._header += part
            elif self._callee is not None:
                self._arguments += part
            elif not self._silent:
                shown.append(part)
        return "".join(shown), calls

    def flush(self, written: str = "") -> Found:  # noqa: ARG002
        """The call that the end of the text ends."""
        shown: list[str] = []
        calls: list[Call] = []
        self._end(shown, calls)
        return "".join(shown), calls

    def _mark(self, mark: str, shown: list[str], calls: list[Call]) -> None:
        if mark == MESSAGE:
            header, self._header = self._header or "", None
            recipient = _RECIPIENT.search(header)
            self._callee = recipient[1] if recipient else None
            self._silent = recipient is None and header.split()[:1] == ["analysis"]
        elif mark in (CHANNEL, CONSTRAIN):
            self._header = "" if self._header is None or (mark == CHANNEL and "to=" not in self._header) else f"{self._header} "
        else:
            self._end(shown, calls)
            self._header = "" if mark == START else None

    def _end(self, shown: list[str], calls: list[Call]) -> None:
        """End a message."""
        if self._callee is not None:
            found = self._callee in self._functions and read_calls(f"{self._callee}[ARGS]{self._arguments}", self._functions)
            calls += found or []
            shown.append("" if found else self._arguments)
        self._callee, self._arguments, self._silent = None, "", False


CallReader = TaggedCalls | WholeCalls | ChannelCalls


def call_reader(template: str, functions: Functions, *, forced: bool = False) -> CallReader | None:
    """The reader for a model with this chat template, None if its text needs none.

    `forced` calls are JSON and nothing else, whatever the template says.
    """
    if not forced and CHANNEL in template and MESSAGE in template:
        return ChannelCalls(functions)
    if not functions:
        return None
    known = {begin: end for begin, end in MARKS.items() if begin in template}
    if BARE in template:
        known[BARE] = BARE_END
    if known and not forced:
        return TaggedCalls(functions, known)
    return WholeCalls(functions, hold="[ARGS]" in template and not forced)
