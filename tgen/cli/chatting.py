"""A conversation as it goes on: messages are answered, and the commands of a person at a terminal obeyed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from tgen.cli.interrupts import EXIT_CODES, Interrupts
from tgen.errors import TgenError, UsageError
from tgen.events import Piece
from tgen.ui import messages
from tgen.ui.dialogue.lines import Listener, Said
from tgen.ui.report import Report
from tgen.ui.stream import PipeStream, open_stream
from tgen.ui.terminal import Color

if TYPE_CHECKING:
    from tgen.cli.remote_talk import RemoteConversation
    from tgen.tasks.conversation import Conversation

KEYS_HELP = """\
Enter sends your message. Alt-Enter, or \\ before Enter, begins a new line of it;
between \"\"\" and \"\"\" Enter does, too. // begins a message with a slash.
The arrow keys bring back what you typed, Ctrl-R searches it, Tab completes
commands and files, Ctrl-X Ctrl-E opens your editor. Ctrl-C stops an answer,
and clears the line you are typing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation with a model, the model's name, and how many tokens its context has."""

    conversation: Conversation | RemoteConversation
    name: str
    context: int


@dataclass(frozen=True, slots=True)
class Look:
    """How to show answers."""

    color: Color
    markdown: bool
    reasoning: bool
    raw: bool
    verbose: bool


@dataclass(slots=True)
class Chatting:
    """A conversation at a terminal or in a pipe; `open` begins one with another model and a system message."""

    opened: Opened
    open: Callable[[str | None, str | None], Opened]
    look: Look
    before: str = ""  # text of standard input, which goes before the first message that is typed
    editing: bool = False  # whether the next message replaces the last one
    listener: Listener | None = None
    failed: int = 0
    ended: int | None = None  # the exit code, set when the conversation is over

    @property
    def conversation(self) -> Conversation | RemoteConversation:
        """The conversation with the current model."""
        return self.opened.conversation

    def listen(self, listener: Listener) -> int:
        """Answer message after message. Returns the exit code: from a pipe, that of the first error; a person has seen the errors."""
        self.listener = listener
        leaving = False
        while self.ended is None:
            try:
                said = listener.read()
                leaving = False
                self._obey(said, listener.typed)
            except EOFError:
                self.ended = 0
            except KeyboardInterrupt:
                if not listener.typed:
                    raise
                self.editing = False
                if leaving and not listener.pending():
                    return EXIT_CODES[signal.SIGINT]
                leaving = not listener.pending()
                if leaving:
                    messages.dim("Ctrl-C once more leaves, like Ctrl-D and /exit")
            except TgenError as error:
                messages.error(error.message, error.hint)
                self.failed = self.failed or error.exit_code
        return self.ended or (0 if listener.typed else self.failed)

    def _obey(self, said: Said, typed: bool) -> None:
        """Answer a message or run a command. Only one typed line can be a command: data from a pipe may begin with a slash by chance."""
        text, editing = said.text, self.editing
        self.editing = False
        if said.quoted or not typed or "\n" in text or not text.startswith("/"):
            if text.strip() or self.before:
                self.say(text, editing)
        elif text.startswith("//"):
            self.say(text[1:], editing)
        else:
            name, *rest = text[1:].split(maxsplit=1) or [""]
            if name not in COMMANDS:
                raise UsageError(f"no command /{name}", "/help lists the commands; // begins a message with a slash")
            COMMANDS[name].run(self, rest[0].strip() if rest else "")

    def say(self, text: str, instead: bool = False) -> None:
        """Answer a message, `instead` of the last one; the text of standard input goes before the first."""
        if instead:
            self.conversation.undo()
        text, self.before = "\n".join(part for part in (self.before, text) if part), ""
        self.answer(text)

    def answer(self, text: str) -> None:
        """Stream the answer to a message, with its statistics."""
        typed = self.listener is not None and self.listener.typed
        report = Report()
        stream = open_stream(self.look.color, echo=False, raw=self.look.raw, show_probs=False, markdown=self.look.markdown)
        if not typed and not isinstance(stream, PipeStream):
            stream.prompt(f"{text}\n")
        try:
            with Interrupts() as interrupts, closing(self.conversation.reply(text, interrupts.asked)) as events:
                for event in events:
                    report.add(event)
                    if isinstance(event, Piece) and (self.look.reasoning or not event.reasoning):
                        stream.write(event.text, reasoning=event.reasoning)
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
        report.show(self.look.verbose)
        if interrupts.exit_code is not None and not (typed and interrupts.exit_code == EXIT_CODES[signal.SIGINT]):
            self.ended = interrupts.exit_code


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a conversation. /help shows its `words` and what it `does`; `takes` says whether its word is a file."""

    run: Callable[[Chatting, str], None]
    words: str
    does: str
    takes: Literal["text", "file"] = "text"


def _help(_: Chatting, __: str) -> None:
    lines = [f"{f'/{name} {command.words}':15} {command.does}" for name, command in COMMANDS.items()]
    typer.echo("\n".join([*lines, "", KEYS_HELP]), err=True)


def _system(chatting: Chatting, text: str) -> None:
    chatting.conversation.system = text or None
    messages.dim("the system message is set" if text else "there is no system message now")


def _retry(chatting: Chatting, _: str) -> None:
    chatting.answer(_some(chatting.conversation.take_back()))


def _undo(chatting: Chatting, _: str) -> None:
    question = _some(chatting.conversation.undo())
    messages.dim(f"taken back: {question if len(question) < 60 else f'{question[:50]} ...'}".replace("\n", " "))


def _edit(chatting: Chatting, text: str) -> None:
    last = _some(chatting.conversation.question())
    if text:
        chatting.say(text, instead=True)
    elif chatting.listener is not None:
        chatting.listener.offer(last)
        chatting.editing = True
        messages.dim("Enter sends this in the place of your last message, Ctrl-C leaves it as it was")


def _copy(chatting: Chatting, _: str) -> None:
    from tgen.ui.dialogue.clipboard import copy

    answer = chatting.conversation.last_answer()
    if answer is None:
        raise UsageError("there is no answer to copy", "say something first")
    copy(answer)
    messages.dim(f"{len(answer):,} characters sent to the terminal's clipboard")


def _tokens(chatting: Chatting, _: str) -> None:
    used, context = chatting.conversation.tokens(), chatting.opened.context
    count = len(chatting.conversation.messages)
    messages.dim(f"{used:,} of {context:,} tokens used ({used / context:.0%}), {count} message{'' if count == 1 else 's'}")


def _model(chatting: Chatting, name: str) -> None:
    if name:
        before = chatting.conversation
        opened = chatting.open(name, before.system)
        opened.conversation.messages = before.messages
        chatting.opened = opened
    messages.dim(f"{chatting.opened.name} · context {chatting.opened.context}")


def _clear(chatting: Chatting, _: str) -> None:
    chatting.conversation.clear()
    messages.dim("everything said is forgotten" + (", but not the system message" if chatting.conversation.system else ""))


def _save(chatting: Chatting, name: str) -> None:
    from tgen.cli.talk import save_messages

    save_messages(_path("save", name), chatting.conversation.messages)
    messages.dim(f"{len(chatting.conversation.messages)} messages written to {name}")


def _load(chatting: Chatting, name: str) -> None:
    from tgen.cli.talk import load_messages

    chatting.conversation.messages = load_messages(_path("load", name))
    messages.dim(f"{len(chatting.conversation.messages)} messages read from {name}")


def _exit(chatting: Chatting, _: str) -> None:
    chatting.ended = 0


COMMANDS = {
    "help": Command(_help, "", "this list"),
    "retry": Command(_retry, "", "answer your last message again"),
    "edit": Command(_edit, "[TEXT]", "edit your last message, or send TEXT in its place"),
    "undo": Command(_undo, "", "take back your last message and its answer"),
    "copy": Command(_copy, "", "put the last answer on the clipboard (OSC 52)"),
    "tokens": Command(_tokens, "", "how much of the context is used"),
    "system": Command(_system, "TEXT", "tell the model TEXT before everything; without TEXT, take it back"),
    "model": Command(_model, "[NAME]", "go on with another model; without NAME, tell which it is"),
    "clear": Command(_clear, "", "forget everything but the system message"),
    "save": Command(_save, "FILE", "write the messages as JSON", "file"),
    "load": Command(_load, "FILE", "read messages that /save wrote, and go on from there", "file"),
    "exit": Command(_exit, "", "leave, like Ctrl-D"),
}


def _some(question: str | None) -> str:
    """A message that must be there. Raises UsageError."""
    if question is None:
        raise UsageError("there is nothing to answer again", "say something first")
    return question


def _path(command: str, name: str) -> Path:
    if not name:
        raise UsageError(f"/{command} needs the name of a file", f"for example /{command} talk.json")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name}: {error}", "name the folder itself") from error
