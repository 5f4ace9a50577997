"""The `tgen` command: its subcommands, and the one place where errors become messages and exit codes.

Command files import nothing heavy at their top, so help and usage errors come at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tgen import __version__
from tgen.cli import bench, generate, info, interrupts, models, tokenize, train
from tgen.errors import TgenError
from tgen.ui import messages


class Command(TyperCommand):
    """A command whose help lists its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options under the headings that `rich_help_panel` names."""
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = getattr(parameter, "param_type_name", "") == "argument"
                groups["Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"].append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


app = typer.Typer(
    name="tgen",
    help="Run transformer checkpoints from plain Hugging Face folders.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
) -> None:
    if version:
        typer.echo(f"tgen {__version__}")
        raise typer.Exit


COMMANDS: dict[Callable[..., int], str] = {
    generate.generate: "Continue a prompt, streaming.",
    info.info: "What a model folder holds, and whether it will run.",
    models.models: "The models on this machine.",
    tokenize.tokenize: "Ids and pieces of a text, and back.",
    bench.bench: "Prefill and decode speed, memory.",
    train.train: "Train a small model on your own text.",
}
for function, summary in COMMANDS.items():
    app.command(cls=Command, short_help=summary)(function)


def main() -> None:
    """The installed entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code and never lets an exception through."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] if debug else list(arguments)
    signal.signal(signal.SIGTERM, interrupts.raise_for)
    try:
        code = _dispatch(arguments, debug)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        messages.error(f"cannot write: {error.strerror or error}")
        return 1
    return code


def _dispatch(arguments: list[str], debug: bool) -> int:
    try:
        return int(app(arguments, prog_name="tgen", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tgen"
        if not error.format_message():  # no command at all: the help was shown
            return error.exit_code
        messages.error(error.format_message().rstrip("."), f"`{path} --help` lists what there is")
        return error.exit_code
    except TgenError as error:
        if debug:
            raise
        messages.error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except typer.Abort:
        return 130
    except (SystemExit, OSError):
        raise
    except MemoryError:
        messages.error("out of memory", "use a smaller model")
        return 4
    except Exception as error:
        if debug:
            raise
        messages.error(f"unexpected {type(error).__name__}: {error}", "this is a bug in tgen; `tgen --debug ...` shows where")
        return 1
