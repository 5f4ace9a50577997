"""The `tgen` command: its subcommands, and the one place where errors become messages and exit codes.

Command files import nothing heavy at their top, so help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
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
from tgen.errors import MemoryLimitError, TgenError, UsageError
from tgen.ui import messages
from tgen.ui.output import write_text


class Command(TyperCommand):
    """A command whose help lists its options in groups."""

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


def main() -> None:
    """The installed entry point."""
    code = run(sys.argv[1:])
    if "torch._inductor.async_compile" not in sys.modules:
        # Nothing is left to be done, and taking torch's modules apart one by one would take longer than a short text.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code and never lets an exception through."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    messages.write_errors_as_json("--json" in options)
    interrupts.handle(signal.SIGTERM, interrupts.raise_for)
    try:
        code = _dispatch([*options, *arguments[end:]], debug=len(options) < end)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        messages.report(TgenError(f"{error.filename or 'cannot write'}: {error.strerror or error}"))
        return 1
    except SystemExit as terminated:
        return int(terminated.code or 0)
    return code


def _dispatch(arguments: list[str], debug: bool) -> int:
    command = typer.main.get_command(app)
    try:
        if not arguments:
            typer.echo(command.get_help(command.make_context("tgen", [], resilient_parsing=True)), err=True)
            return 2
        with command.make_context("tgen", [*arguments]) as context:  # which it empties
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
    except KeyboardInterrupt:
        return 130
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
