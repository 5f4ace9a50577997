"""Reports a generation on stderr: warnings, one line of statistics, and with --verbose every setting and a command."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol

from tgen.declaration import flag
from tgen.events import Event, Finished, Note, Piece, Reading, Started, Token
from tgen.options import DECLARED, GenerationOptions, GuessOptions, Resolved, RunOptions
from tgen.ui import messages
from tgen.ui.counting import Bar, is_watched
from tgen.ui.harmless import harmless
from tgen.ui.terminal import is_terminal
from tgen.values import Constraint

PATIENCE_SECONDS = 0.5  # a prompt that is read within this time needs no bar
Running = RunOptions | GuessOptions
REASONS = {"stop": "ended by itself", "length": "cut by length", "time": "cut by time", "cancelled": "interrupted"}


class Sink(Protocol):
    """Where events go."""

    def add(self, event: Event) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Report:
    """Watches the events of one generation."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._finished: list[Finished] = []
        self._tokens: list[Token] = []
        self._late: list[Note] = []
        self._since = time.monotonic()
        self._bar: Bar | None = None

    def add(self, event: Event) -> None:
        """Take an event; notes are shown at once, but never in the middle of the text. A slow reading of the prompt has a bar."""
        if isinstance(event, Reading):
            self._read(event)
            return
        self.close()
        if isinstance(event, Note) and self._started is None:
            messages.warning(event.text)
        elif isinstance(event, Note):
            self._late.append(event)
        elif isinstance(event, Started):
            self._started = event
        elif isinstance(event, Piece) and event.index == 0:
            self._tokens.extend(event.tokens)
        elif isinstance(event, Finished):
            self._finished.append(event)

    def close(self) -> None:
        """Remove the bar before other output."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _read(self, event: Reading) -> None:
        if self._bar is None and is_watched() and time.monotonic() - self._since > PATIENCE_SECONDS:
            self._bar = Bar("reading", event.total)
        if self._bar is not None:
            self._bar.reach(event.done)

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has; 0 before it is accepted."""
        return self._started.prompt_tokens if self._started else 0

    @property
    def cut_short(self) -> bool:
        """Whether any sample ended before the model meant it to."""
        return any(event.reason in ("length", "time") for event in self._finished)

    def show(self, verbose: bool) -> None:
        """Show the late notes and, on a terminal or if `verbose`, one dim line: tokens, speed, first token, why it stopped, seed."""
        for note in self._late:
            messages.warning(note.text)
        if self._started is None or not self._finished or not (verbose or is_terminal(sys.stderr)):
            return
        count = sum(event.token_count for event in self._finished)
        guessed, right = sum(event.guessed for event in self._finished), sum(event.guessed_right for event in self._finished)
        seconds = max(event.decode_seconds for event in self._finished)
        reasons = dict.fromkeys(REASONS[event.reason] for event in self._finished)
        cached = f" ({self._started.cached_tokens} cached)" if self._started.cached_tokens else ""
        parts = [
            f"{self._started.prompt_tokens}{cached} + {count} tokens",
            f"{count / seconds:.0f} tokens/s" if seconds else "",
            f"first after {max(event.prefill_seconds for event in self._finished):.2f} s",
            f"guessed {guessed}, {right} right" if verbose and guessed else "",
            ", ".join(reasons),
            f"seed {self._started.seed}",
        ]
        messages.dim(" · ".join(part for part in parts if part))

    def show_probabilities(self) -> None:
        """Write each token of the first sample with its raw probability, one a line."""
        for token in self._tokens:
            messages.dim(f"{math.exp(token.score.logprob):7.2%}  {token.score.text!r}")


def show_settings(
    model: str, prompt: str, resolved: Resolved, started: Started, running: Sequence[Running], words: Sequence[str] = ()
) -> None:
    """Every value that has an effect, with its source, and the command that writes the same text again, `words` among its options."""
    command = ["tgen", "generate", "--model", model, *words]
    unused = resolved.unused()
    for name in [option.name for option in fields(GenerationOptions) if option.name not in unused]:
        shown = flag(name)
        value: object = getattr(resolved.options, name)
        origin: str = resolved.origins[name]
        if name == "seed" and value is None:
            value, origin = started.seed, "chosen"
        if isinstance(value, Constraint):
            shown, value = value.flag, value.text
        elif isinstance(value, tuple) and not DECLARED[name].repeated:
            value = ",".join(value)
        if name != "logprobs":  # --logprobs changes no text, and needs --json
            command += _words(shown, value)
        messages.dim(f"{shown:22} {shell_words(_values(value)) or 'none':14} {origin}")
    for record in running:
        for option in fields(record):
            command += _words(flag(option.name), getattr(record, option.name))
    messages.dim(_with_prompt(command, prompt))


def _with_prompt(command: list[str], prompt: str) -> str:
    """The command with its prompt: as an argument, or through a pipe where no argument can hold it."""
    if prompt != "-" and "\0" not in prompt:
        return shell_words([*command, "--", prompt])
    text = prompt.replace("\\", "\\\\").replace("%", "%%").replace("\0", "\\000") + "\\n"
    return f"{shell_words(['printf', '--', text])} | {shell_words(command)}"


def _values(value: object) -> list[str]:
    """An option's value or values as words; no word for an option that is off."""
    if value is None or value is False:
        return []
    return list(value) if isinstance(value, tuple) else ["on" if value is True else str(value)]


def _words(name: str, value: object) -> list[str]:
    """The words that set an option on a command line."""
    if value is True or (value is False and name == "--guess"):
        return [name if value else f"--no{name[1:]}"]
    return [word for text in _values(value) for word in (name, text)]


def shell_words(words: Sequence[str]) -> str:
    """Words on one line for a shell to read back: those with line breaks or control characters in the $'...' notation."""
    return " ".join(shlex.quote(word) if all(map(_is_plain, word)) else f"$'{''.join(map(_escaped, word))}'" for word in words)


def _is_plain(character: str) -> bool:
    return character == harmless(character) and character not in "\n\t"


def _escaped(character: str) -> str:
    """A character in the $'...' notation; its bytes in octal, which every locale reads alike, if a terminal would obey it."""
    if character in "\\'\n\t":
        return {"\n": "\\n", "\t": "\\t"}.get(character, f"\\{character}")
    return character if _is_plain(character) else "".join(f"\\{byte:03o}" for byte in character.encode())
