"""What is said on stderr about a generation: warnings, one line of statistics, and with --verbose every setting. Knows events."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import fields
from typing import Protocol

from tgen.events import Event, Finished, Note, Piece, Started, Token
from tgen.options import GenerationOptions, Resolved, RunOptions
from tgen.ui import messages
from tgen.ui.terminal import is_terminal

REASONS = {"stop": "ended by itself", "length": "cut by length", "cancelled": "interrupted"}


class Sink(Protocol):
    """Where events go."""

    def add(self, event: Event) -> None: ...
    def close(self) -> None: ...


class Report:
    """Watches the events of one generation."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._finished: list[Finished] = []
        self._tokens: list[Token] = []

    def add(self, event: Event) -> None:
        """Take an event; notes are shown at once."""
        if isinstance(event, Note):
            messages.warning(event.text)
        elif isinstance(event, Started):
            self._started = event
        elif isinstance(event, Piece) and event.index == 0:
            self._tokens.extend(event.tokens)
        elif isinstance(event, Finished):
            self._finished.append(event)

    @property
    def cut_by_length(self) -> bool:
        """Whether any sample ended before the model meant it to."""
        return any(event.reason == "length" for event in self._finished)

    def show(self, verbose: bool) -> None:
        """One dim line, if someone is looking or asked for it: tokens, speed, time to first token, why it stopped, seed."""
        if self._started is None or not self._finished or not (verbose or is_terminal(sys.stderr)):
            return
        count = sum(event.token_count for event in self._finished)
        seconds = max(event.decode_seconds for event in self._finished)
        reasons = dict.fromkeys(REASONS[event.reason] for event in self._finished)
        parts = [
            f"{self._started.prompt_tokens} + {count} tokens",
            f"{count / seconds:.0f} tokens/s" if seconds else "",
            f"first after {max(event.prefill_seconds for event in self._finished):.2f} s",
            ", ".join(reasons),
            f"seed {self._started.seed}",
        ]
        messages.dim(" · ".join(part for part in parts if part))

    def show_probabilities(self) -> None:
        """Each token of the first sample with its raw probability, one a line."""
        for token in self._tokens:
            messages.dim(f"{math.exp(token.score.logprob):7.2%}  {token.score.text!r}")


def show_settings(model: str, prompt: str, resolved: Resolved, started: Started, run_options: RunOptions) -> None:
    """Every effective value with its source, and the command that gives the same text again."""
    options = resolved.options
    words = ["tgen", "generate", "--model", model, "--seed", str(started.seed)]
    for option in fields(GenerationOptions):
        value = getattr(options, option.name)
        flag = f"--{option.name.replace('_', '-')}"
        shown = started.seed if option.name == "seed" else value
        messages.dim(f"{flag:22} {shown!s:12} {'chosen' if option.name == 'seed' and value is None else resolved.origins[option.name]}")
        if option.name == "stop":
            words += [word for text in value for word in (flag, text)]
        elif value is True:
            words.append(flag)
        elif option.name not in ("seed", "logprobs") and value is not False and value is not None:
            words += [flag, str(value)]
    words += ["--device", run_options.device, "--dtype", run_options.dtype]
    words += ["--threads", str(run_options.threads)] if run_options.threads else []
    messages.dim(shlex.join([*words, "--", prompt]))
