"""The `tgen` command: its subcommands, and the one place where errors become messages and exit codes.

Command files import nothing heavy at their top, so help and usage errors come at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tgen import __version__
from tgen.cli import completion, interrupts, settings
from tgen.cli.options import converted, refuse_empty_values
from tgen.errors import MemoryLimitError, TgenError, UsageError
from tgen.files import current_folder_is_gone
from tgen.ui import messages
from tgen.ui.output import write_text

# The arguments that are texts: they may be empty, and `-` may stand beside them.
TEXTS = ("prompt", "text")


class Conversion:
    """Converts the values of a parameter. Typer does so with pydantic, whose import and use would take a fifth of a short run."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002
        """What typer calls for each parameter of a command, given or not."""
        return converted(value, param.type_descriptor.annotation, param.opts[0])


class QuickParameters:
    """A command or group that converts the values of its parameters itself, the value of --help included."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; typer asks for them before it reads any value."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            parameter.get_runtime_param = Conversion
        return parameters


class Group(QuickParameters, TyperGroup):
    """tgen itself."""


class Command(QuickParameters, TyperCommand):
    """A command whose help lists its options in groups, and whose options take no empty values."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Show that a command takes one text, and `-` beside it."""
        texts = {f"[{one.metavar}]...": f"[{one.metavar}] [-]" for one in self.get_params(ctx) if one.name in TEXTS}
        return [texts.get(piece, piece) for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse empty values before typer converts them: as a path, an empty value would be the current folder."""
        if not ctx.resilient_parsing:  # which is on while a shell completes a line
            given, *_ = self.make_parser(ctx).parse_args(args=[*args])
            refuse_empty_values(self.get_params(ctx), given)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options under the headings that `rich_help_panel` names."""
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if getattr(parameter, "param_type_name", "") == "argument":
                groups["Arguments"].append((str(parameter.metavar), getattr(parameter, "help", "")))
            elif record is not None:
                groups[getattr(parameter, "rich_help_panel", None) or "Options"].append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        write_text(f"tgen {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)] = False,
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion", help="Have your shell complete commands, options and names.", callback=completion.install, is_eager=True
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(
            "--show-completion", help="Write the script that does so: bash, zsh or fish.", callback=completion.show, is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Declares the options of tgen itself; `run` looks for --debug."""


COMMANDS = {
    "generate": "Continue a prompt, streaming.",
    "chat": "Talk to a chat model.",
    "batch": "Answer JSON lines with JSON lines, many at once.",
    "translate": "Translate line by line.",
    "score": "Show how well a model predicts a text.",
    "fill": "Find tokens that may take the place of a mask.",
    "embed": "Make a vector of each line.",
    "explain": "Show each token's candidates on their way through the sampler.",
    "attention": "Show where each token looks, as a heat map.",
    "info": "Show what a model folder holds, and whether it will run.",
    "models": "List the models on this machine, or remove one that was pulled.",
    "pull": "Fetch a model from the Hugging Face hub.",
    "tokenize": "Show the ids and pieces of a text, and turn ids back into text.",
    "bench": "Measure prefill and decode speed, and memory.",
    "quantize": "Write a model with weights of 8 or 4 bits into a new folder.",
    "train": "Train a small model on your own text.",
    "serve": "Serve models over HTTP, as OpenAI does.",
    "config": "Show the settings in force, and where each is from.",
}


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """All commands, but only those of these names can be run: the modules of the others, which take time to import, are not read."""
    app = typer.Typer(
        name="tgen",
        cls=Group,
        help="Generate text with transformer models, straight from Hugging Face folders or GGUF files.",
        epilog='To begin: tgen generate "Once upon a time". To read about a command and its options: tgen COMMAND --help.',
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for name, short_help in COMMANDS.items():
        function = getattr(import_module(f"tgen.cli.{name}"), name) if name in names else _unread
        app.command(name, cls=Command, short_help=short_help)(function)
    return app


def _unread() -> None:
    """Stands for a command that is not run."""


# Hints for errors of the operating system.
HINTS = {
    0: "check where standard output goes",
    errno.ENOSPC: "make room, or write to another disk",
    errno.EDQUOT: "make room, or write to another disk",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EACCES: "check who may read and write it",
    errno.EPERM: "check who may read and write it",
    errno.EROFS: "write to another disk",
}


def main() -> None:
    """The installed entry point."""
    try:
        interrupts.raise_exceptions()
        code = run(sys.argv[1:])
        interrupts.leave_at_once()
    except KeyboardInterrupt:
        code = interrupts.EXIT_CODES[signal.SIGINT]
    # Exit handlers run here; torch's compiler ends its processes in one. The rest of Python's shutdown only frees memory,
    # module by module, which with torch loaded takes longer than writing a short text.
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line. Returns the exit code; no exception leaves it."""
    try:
        if completion.asked():
            named = completion.command_line(COMMANDS)
            settings.running("".join(named), COMMANDS)
            return completion.answer(typer.main.get_command(make_app(named)))
        end = arguments.index("--") if "--" in arguments else len(arguments)
        options = [argument for argument in arguments[:end] if argument != "--debug"]
        messages.write_errors_as_json("--json" in options)
        code = _dispatch([*options, *arguments[end:]], debug=len(options) < end)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has read enough. Without this, Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename is None and current_folder_is_gone():
            messages.report(UsageError("the current folder does not exist any more", "go to another one"))
            return UsageError.exit_code
        hint = HINTS.get(error.errno or 0, "check the file and the disk")
        messages.report(TgenError(f"{error.filename or 'cannot write'}: {error.strerror or error}", hint))
        return 1
    except KeyboardInterrupt:
        return interrupts.EXIT_CODES[signal.SIGINT]
    except SystemExit as terminated:
        return int(terminated.code or 0)


def _dispatch(arguments: list[str], debug: bool) -> int:
    named = [argument for argument in arguments if argument in COMMANDS][:1]
    settings.running("".join(named), COMMANDS)
    try:
        command = typer.main.get_command(make_app(named))
        if not arguments:
            typer.echo(command.get_help(command.make_context("tgen", [], resilient_parsing=True)), err=True)
            return 2
        with command.make_context("tgen", [*arguments]) as context:  # a copy, because typer empties the list
            return int(command.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        messages.report(UsageError(*_explain(error, arguments)))
        return error.exit_code
    except TgenError as error:
        if debug:
            traceback.print_exc()
        error.hint = error.hint or (_where_to_look(arguments) if isinstance(error, UsageError) else None)
        messages.report(error)
        return error.exit_code
    except OSError:
        raise
    except MemoryError:
        messages.report(MemoryLimitError("out of memory", "use a smaller model"))
        return 4
    except Exception as error:
        if debug:
            traceback.print_exc()
        messages.report(TgenError(f"unexpected {type(error).__name__}: {error}", "this is a bug in tgen; `tgen --debug ...` shows where"))
        return 1


def _explain(error: Any, arguments: list[str]) -> tuple[str, str]:
    """The message and the hint for a command line that typer refuses."""
    hint = _where_to_look(arguments)
    message = error.format_message().rstrip(".")
    if message.startswith("No such command"):
        hint = "`tgen --help` lists the commands"
    if "unexpected extra argument" in message:
        hint = f"a text of several words needs quotes; {hint}"
    return message[:1].lower() + message[1:], hint


def _where_to_look(arguments: list[str]) -> str:
    """The hint for a word that tgen does not know: it names the help page to read."""
    command = [name for name in arguments[:1] if name in COMMANDS]
    return f"`{' '.join(['tgen', *command, '--help'])}` explains its use"
