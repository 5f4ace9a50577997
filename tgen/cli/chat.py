"""`tgen chat`: a conversation with a chat model."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args

from tgen.cli import options as p
from tgen.cli.chatting import COMMANDS, Chatting, Look, Opened
from tgen.cli.completion import model_names
from tgen.cli.opening import chat_template, open_checkpoint, open_generator, require_kind
from tgen.cli.prompt import check_encoding, decode
from tgen.cli.remote import chosen
from tgen.cli.settings import KEYS, named_model
from tgen.options import GuessOptions, RunOptions
from tgen.ui import messages
from tgen.ui.dialogue.lines import Listener, PipedLines, PlainLines
from tgen.ui.input import read_stdin
from tgen.ui.output import open_stdout
from tgen.ui.terminal import is_terminal
from tgen.values import CONSTRAINTS

if TYPE_CHECKING:
    from tgen.ui.dialogue.completion import Takes

Lines = Annotated[
    bool,
    p.option(
        "--lines", panel=p.PROMPT,
        help="Take each line of standard input as a message, and end after the last. It is always so where standard output is no terminal.",
    ),
]  # fmt: skip
History = Annotated[
    bool,
    p.option(
        "--history/--no-history", panel=p.PROMPT, default="on",
        help="Keep what you type in ~/.local/state/tgen/chat_history for the next time.",
    ),
]  # fmt: skip
KeysOption = Annotated[
    KEYS,
    p.option(
        "--keys", panel=p.PROMPT, metavar="|".join(get_args(KEYS)), default="auto: as ~/.inputrc says, else emacs",
        help="The keys that edit your message.",
    ),
]  # fmt: skip

DECLARATIONS: dict[str, dict[str, Any]] = {
    "overflow": {
        "help": "What to do if the conversation exceeds the context. error, shrink: report an error, then wait for the next message. "
        "truncate-left: leave out the oldest turns, but never the system message."
    },
    "max_new_tokens": {
        "help": "Stop an answer after this many tokens.",
        "default": "the model's, else all the room in the context",
    },
    "seed": {
        "help": "The seed of the first answer; each later one has the next number. Without --seed, tgen chooses; --verbose shows them."
    },
}


@p.takes(without=("num_beams", "ignore_eos", *CONSTRAINTS, "samples", "logprobs"), but=DECLARATIONS)
def chat(
    system: p.SystemOfChat = None,
    template_arg: p.TemplateArg = None,
    *,
    asked: p.Asked,
    lines: Lines = False,
    history: History = True,
    keys: KeysOption = "auto",
    color: p.ColorOption = "auto",
    quiet: p.Quiet = False,  # noqa: ARG001
    verbose: p.VerboseOfChat = False,
    markdown: p.Markdown = False,
    reasoning: p.Reasoning = True,
    raw: p.Raw = False,
    model: p.Model = None,
    run: RunOptions,
    guessing: GuessOptions,
    server: p.Server = None,
) -> int:
    """Talk to a chat model: you type a message, and the answer streams to standard output.

    The model's folder needs a chat template. Enter sends a message, Alt-Enter or a backslash before Enter begins a new line of it, Ctrl-R
    searches what you typed earlier, Ctrl-X Ctrl-E opens your editor. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends the
    conversation. In each turn the model reads only the new text.

    If standard input is a pipe and the rest a terminal, the piped text goes before your first message, which you type at the terminal.

    If standard output is no terminal, or with --lines, nobody types, and there are no commands: each line of standard input is a message,
    whatever it begins with, and each answer is followed by a newline. A message of several lines has a backslash at the end of each but the
    last, or stands between \"\"\" and \"\"\". The exit code is that of the first message that failed, 0 if none did.
    """
    check_encoding("--system", system or "")
    asked = asked.preferring(num_beams=1)  # beams do not stream
    open_stdout()
    opening = Opening(asked, template_arg or [], run, guessing, server)
    opened = opening.open(model, system)
    chatting = Chatting(opened, opening.open, Look(color, markdown, reasoning, raw, verbose))
    if lines or (terminal := _keyboard()) is None:
        return chatting.listen(PipedLines())
    if terminal is not sys.stdin:
        chatting.before = decode(read_stdin(), "standard input")
    messages.dim(f"{opened.name} · context {opened.context} · /help lists commands, Ctrl-D leaves")
    if chatting.before:
        messages.dim(f"{len(chatting.before):,} characters of standard input go before your first message; Enter alone sends them")
    return chatting.listen(_listener(terminal, history, keys))


@dataclass(frozen=True, slots=True)
class Opening:
    """What all models of a conversation are opened with."""

    asked: p.Asked
    arguments: list[str]  # of --template-arg
    run: RunOptions
    guessing: GuessOptions
    server: str | None

    def open(self, model: str | None, system: str | None) -> Opened:
        """Begin a conversation with the model that --model names, here or on a server. Raises TgenError."""
        remote = chosen(self.server, model, ("decoder-only",), self.run, self.guessing)
        checkpoint = open_checkpoint(model, adapters=self.run.adapter) if remote is None else remote.describe()
        require_kind(checkpoint, "chat", "decoder-only")
        if remote is not None:
            from tgen.cli.remote_talk import RemoteConversation

            name = named_model(model) or checkpoint.name
            return Opened(RemoteConversation(remote, self.asked, self.arguments, system), name, checkpoint.spec.context)
        template = chat_template(checkpoint, self.arguments)

        from tgen.tasks.conversation import Conversation, check_system

        check_system(template, system)
        generator, name = open_generator(model, self.run, checkpoint, self.guessing)
        resolved = generator.resolve(self.asked.values, self.asked.environment)
        return Opened(Conversation(generator, template, resolved, system), name, generator.context)


def _keyboard() -> TextIO | None:
    """The terminal that a person types at: standard input or, where that is a pipe, the terminal that tgen was started from.

    None for a script, whose output goes elsewhere, and for a job in the background, which the terminal would stop.
    """
    if sys.stdin is not None and is_terminal(sys.stdin):
        return sys.stdin
    try:
        if is_terminal(sys.stdout) and os.tcgetpgrp(1) == os.getpgrp():
            return open("/dev/tty", encoding="utf-8")
    except OSError:
        pass  # standard output is another terminal than this process's own
    return None


def _listener(terminal: TextIO, history: bool, keys: KEYS) -> Listener:
    """The reader of a person's messages, with editing, history and completion where the terminal can move its cursor."""
    screen = next((stream for stream in (sys.stdout, sys.stderr) if is_terminal(stream)), None)
    if screen is None or os.environ.get("TERM", "dumb") == "dumb" or sys.platform == "win32":
        return PlainLines(terminal)

    from tgen.ui.dialogue.history import history_file
    from tgen.ui.dialogue.keyboard import Keyboard

    commands: dict[str, Takes] = {name: command.takes for name, command in COMMANDS.items()}
    commands["model"] = lambda: model_names("")
    return Keyboard(terminal, screen, history_file() if history else None, keys, commands)
