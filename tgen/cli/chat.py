"""`tgen chat`: a conversation with a chat model."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli.interrupts import EXIT_CODES, Interrupts
from tgen.cli.opening import chat_template, open_checkpoint, open_generator, require_kind
from tgen.cli.prompt import check_encoding
from tgen.cli.remote import chosen
from tgen.cli.settings import named_model
from tgen.errors import TgenError, UsageError
from tgen.events import Piece
from tgen.options import GuessOptions, RunOptions
from tgen.ui import messages
from tgen.ui.dialogue import PipedLines, Said, TypedLines, history_file, read_message
from tgen.ui.output import open_stdout
from tgen.ui.report import Report
from tgen.ui.stream import PipeStream, open_stream
from tgen.ui.terminal import Color, is_terminal
from tgen.values import CONSTRAINTS

if TYPE_CHECKING:
    from tgen.cli.remote_talk import RemoteConversation
    from tgen.tasks.conversation import Conversation

HELP = """\
/help          this list
/system TEXT   tell the model TEXT before everything; without TEXT, take it back
/retry         answer your last message again
/clear         forget everything but the system message
/save FILE     write the messages as JSON
/load FILE     read messages that /save wrote, and go on from there
/exit          leave, like Ctrl-D

A line that ends in \\ goes on in the next one; a text of several lines may
also stand between \"\"\" and \"\"\". // begins a message with a slash.
Ctrl-C stops an answer, and clears the line you are typing."""

NoHistory = Annotated[
    bool, p.option("--no-history", panel=p.PROMPT, help="Do not keep what you type in ~/.local/state/tgen/chat_history for the next time.")
]

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
    no_history: NoHistory = False,
    color: p.ColorOption = "auto",
    quiet: p.Quiet = False,  # noqa: ARG001
    verbose: p.VerboseOfChat = False,
    raw: p.Raw = False,
    model: p.Model = None,
    run: RunOptions,
    guessing: GuessOptions,
    server: p.Server = None,
) -> int:
    """Talk to a chat model: you type a message, and the answer streams to standard output.

    The model's folder needs a chat template. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends the conversation. In each turn
    the model reads only the new text.

    With a pipe as standard input there are no commands: each line is a message, whatever it begins with, and each answer is followed by a
    newline. A message of several lines has a backslash at the end of each but the last, or stands between \"\"\" and \"\"\". The exit code
    is that of the first message that failed, 0 if none did.
    """
    check_encoding("--system", system or "")
    asked = asked.preferring(num_beams=1)  # beams do not stream
    open_stdout()
    remote = chosen(server, model, ("decoder-only",), run, guessing)
    checkpoint = open_checkpoint(model, adapters=run.adapter) if remote is None else remote.describe()
    require_kind(checkpoint, "chat", "decoder-only")
    conversation: Conversation | RemoteConversation
    if remote is None:
        template = chat_template(checkpoint, template_arg)

        from tgen.tasks.conversation import Conversation, check_system

        check_system(template, system)
        generator, name = open_generator(model, run, checkpoint, guessing)
        conversation = Conversation(generator, template, generator.resolve(asked.values, asked.environment), system)
        context = generator.context
    else:
        from tgen.cli.remote_talk import RemoteConversation

        conversation = RemoteConversation(remote, asked, template_arg or [], system)
        name, context = named_model(model) or checkpoint.name, checkpoint.spec.context
    chatting = Chatting(conversation, color, raw, verbose)
    if not is_terminal(sys.stdin):
        return chatting.listen(PipedLines())
    messages.dim(f"{name} · context {context} · /help lists commands, Ctrl-D leaves")
    lines = TypedLines(None if no_history else history_file())
    try:
        return chatting.listen(lines)
    finally:
        lines.close()


@dataclass(slots=True)
class Chatting:
    """A conversation at a terminal or in a pipe."""

    conversation: Conversation | RemoteConversation
    color: Color
    raw: bool
    verbose: bool
    failed: int = 0
    ended: int | None = None  # the exit code, set when the conversation is over
    commands: dict[str, Callable[[str], None]] = field(init=False)

    def __post_init__(self) -> None:
        self.commands = {
            "help": lambda _: typer.echo(HELP, err=True),
            "system": self._system,
            "clear": self._clear,
            "save": self._save,
            "load": self._load,
            "exit": self._exit,
        }

    def listen(self, lines: PipedLines | TypedLines) -> int:
        """Answer message after message. Returns the exit code: in a pipe that of the first error; a person at a terminal saw it."""
        typed = isinstance(lines, TypedLines)
        leaving = False
        while self.ended is None:
            try:
                said = read_message(lines)
                leaving = False
                self._obey(said, typed)
            except EOFError:
                self.ended = 0
                if typed:
                    typer.echo(err=True)
            except KeyboardInterrupt:
                if not isinstance(lines, TypedLines):
                    raise
                typer.echo(err=True)
                if leaving and not lines.pending():
                    return EXIT_CODES[signal.SIGINT]
                leaving = not lines.pending()
                if leaving:
                    messages.dim("Ctrl-C once more leaves, like Ctrl-D and /exit")
            except TgenError as error:
                messages.error(error.message, error.hint)
                self.failed = self.failed or error.exit_code
        return self.ended or (0 if typed else self.failed)

    def _obey(self, said: Said, typed: bool) -> None:
        """Answer a message or run a command. Only a typed line can be a command: data from a pipe may begin with a slash by chance."""
        text = said.text
        if said.quoted or not typed or not text.startswith("/"):
            if text.strip():
                self._answer(text, typed)
        elif text.startswith("//"):
            self._answer(text[1:], typed)
        else:
            name, *rest = text[1:].split(maxsplit=1) or [""]
            if name == "retry":
                self._retry(typed)
            elif name in self.commands:
                self.commands[name](rest[0].strip() if rest else "")
            else:
                raise UsageError(f"no command /{name}", "/help lists the commands; // begins a message with a slash")

    def _answer(self, text: str, typed: bool) -> None:
        """Stream the answer to a message, with its statistics."""
        report = Report()
        stream = open_stream(self.color, echo=False, raw=self.raw, show_probs=False)
        if not typed and not isinstance(stream, PipeStream):
            stream.prompt(f"{text}\n")
        try:
            with Interrupts() as interrupts, closing(self.conversation.reply(text, interrupts.asked)) as events:
                for event in events:
                    report.add(event)
                    if isinstance(event, Piece):
                        stream.write(event.text)
        except KeyboardInterrupt:
            report.close()
            stream.close()
            if not typed:
                raise
            messages.dim("interrupted")
            return
        except BaseException:
            report.close()
            stream.close()
            raise
        if isinstance(stream, PipeStream):
            stream.separate()
        else:
            stream.close()
        report.show(self.verbose)
        if interrupts.exit_code is not None and not (typed and interrupts.exit_code == EXIT_CODES[signal.SIGINT]):
            self.ended = interrupts.exit_code

    def _system(self, text: str) -> None:
        self.conversation.system = text or None
        messages.dim("the system message is set" if text else "there is no system message now")

    def _retry(self, typed: bool) -> None:
        question = self.conversation.last_question()
        if question is None:
            raise UsageError("there is nothing to answer again", "say something first")
        self._answer(question, typed)

    def _clear(self, _: str) -> None:
        self.conversation.clear()
        messages.dim("everything said is forgotten" + (", but not the system message" if self.conversation.system else ""))

    def _save(self, name: str) -> None:
        from tgen.cli.talk import save_messages

        save_messages(_path("save", name), self.conversation.messages)
        messages.dim(f"{len(self.conversation.messages)} messages written to {name}")

    def _load(self, name: str) -> None:
        from tgen.cli.talk import load_messages

        self.conversation.messages = load_messages(_path("load", name))
        messages.dim(f"{len(self.conversation.messages)} messages read from {name}")

    def _exit(self, _: str) -> None:
        self.ended = 0


def _path(command: str, name: str) -> Path:
    if not name:
        raise UsageError(f"/{command} needs the name of a file", f"for example /{command} talk.json")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name}: {error}", "name the folder itself") from error
