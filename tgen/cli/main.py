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
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tgen import __version__
from tgen.cli import (
    attention,
    batch,
    bench,
    chat,
    embed,
    explain,
    fill,
    generate,
    info,
    interrupts,
    models,
    score,
    tokenize,
    train,
    translate,
)
from tgen.errors import TgenError, UsageError
from tgen.ui import messages
from tgen.ui.output import write_text

# Arguments that are a text, which may be empty; `-` may stand beside them.
TEXTS = ("prompt", "text")


class Command(TyperCommand):
    """A command whose help lists its options in groups, and whose options take no empty values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raise UsageError for an empty value: it is never meant, and as a path it would be the current folder."""
        given, _, parameters = self.make_parser(ctx).parse_args(args=[*args])
        for parameter in parameters:
            values = given.get(parameter.name)
            if parameter.name not in TEXTS and "" in (values if isinstance(values, list | tuple) else [values]):
                name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
                raise UsageError(f"{name} must not be empty", "leave it out, or give a value; a variable in its place may be unset")
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Show that of the arguments of such a command one is the text and another `-`."""
        texts = {f"[{one.metavar}]...": f"[{one.metavar}] [-]" for one in self.get_params(ctx) if one.name in TEXTS}
        return [texts.get(piece, piece) for piece in super().collect_usage_pieces(ctx)]

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


app = typer.Typer(
    name="tgen",
    help="Run transformer checkpoints from plain Hugging Face folders.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_text(f"tgen {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; goes anywhere.")] = False,
) -> None:
    """`run` looks for --debug itself."""


COMMANDS: dict[Callable[..., int], str] = {
    generate.generate: "Continue a prompt, streaming.",
    chat.chat: "Talk to a chat model.",
    batch.batch: "JSON lines in, JSON lines out, many at once.",
    translate.translate: "One line in, one line out, in another language.",
    score.score: "How well a model predicts a text.",
    fill.fill: "What may stand in place of a mask.",
    embed.embed: "A vector for each line.",
    explain.explain: "Each token's candidates on their way through the sampler.",
    attention.attention: "Where each token looks, as a heat map.",
    info.info: "What a model folder holds, and whether it will run.",
    models.models: "The models on this machine.",
    tokenize.tokenize: "Ids and pieces of a text, and back.",
    bench.bench: "Prefill and decode speed, memory.",
    train.train: "Train a small model on your own text.",
}
for function, summary in COMMANDS.items():
    app.command(cls=Command, short_help=summary)(function)


# What to do about an error of the operating system.
HINTS = {
    0: "check where standard output goes",
    errno.ENOSPC: "make room, or write to another disk",
    errno.EDQUOT: "make room, or write to another disk",
    errno.ENOENT: "check the path",
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
    # What was registered for the end runs, such as the end of a compiler's processes. After that Python would take torch's modules apart
    # one by one, which takes longer than a short text.
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code and never lets an exception through."""
    try:
        end = arguments.index("--") if "--" in arguments else len(arguments)
        options = [argument for argument in arguments[:end] if argument != "--debug"]
        code = _dispatch([*options, *arguments[end:]], debug=len(options) < end)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has had enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        messages.error(
            f"{error.filename or 'cannot write'}: {error.strerror or error}", HINTS.get(error.errno or 0, "check the file and the disk")
        )
        return 1
    except KeyboardInterrupt:
        return interrupts.EXIT_CODES[signal.SIGINT]
    except SystemExit as terminated:
        return int(terminated.code or 0)


def _dispatch(arguments: list[str], debug: bool) -> int:
    try:
        command = typer.main.get_command(app)
        if not arguments:
            typer.echo(command.get_help(command.make_context("tgen", [], resilient_parsing=True)), err=True)
            return 2
        with command.make_context("tgen", [*arguments]) as context:  # which it empties
            return int(command.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        messages.error(*_explain(error, arguments))
        return error.exit_code
    except TgenError as error:
        if debug:
            traceback.print_exc()
        messages.error(error.message, error.hint or (_where_to_look(arguments) if isinstance(error, UsageError) else None))
        return error.exit_code
    except OSError:
        raise
    except MemoryError:
        messages.error("out of memory", "use a smaller model")
        return 4
    except Exception as error:
        if debug:
            traceback.print_exc()
        messages.error(f"unexpected {type(error).__name__}: {error}", "this is a bug in tgen; `tgen --debug ...` shows where")
        return 1


def _explain(error: Any, arguments: list[str]) -> tuple[str, str]:
    """What is wrong with a command line, and where to look it up."""
    hint = _where_to_look(arguments)
    message = _wrong_value(error) or error.format_message().rstrip(".")
    if "unexpected extra argument" in message:
        hint = f"a text of several words needs quotes; {hint}"
    return message[:1].lower() + message[1:], hint


def _where_to_look(arguments: list[str]) -> str:
    """The hint for whoever asked for something that there is not."""
    command = [name for name in arguments[:1] if name in {function.__name__ for function in COMMANDS}]
    return f"`{' '.join(['tgen', *command, '--help'])}` lists what there is"


def _wrong_value(error: Any) -> str | None:
    """The message for a value that cannot be read, with option and value, from what pydantic told typer."""
    if not hasattr(error.__cause__, "errors") or getattr(error, "param", None) is None:
        return None
    option, problem = error.param.opts[0], error.__cause__.errors()[0]
    reason: str = problem["msg"].removeprefix("Value error, ")
    if not reason.startswith("Input should be "):
        return f"{option}: {reason}"
    wanted = reason.removeprefix("Input should be ").partition(", ")[0]
    wanted = wanted.replace("valid integer", "whole number").replace("valid number", "number")
    return f"{option} must be {wanted}, not {problem['input']!r}"
