"""`tgen batch`: JSON lines in, JSON lines out, many rows at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tgen.batch.answering import Answerer, Answers
from tgen.batch.journal import Journal, count_lines
from tgen.batch.lines import EVERY, open_inputs, read_shard
from tgen.batch.run import BatchRun
from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.opening import chat_template, open_checkpoint, open_generator
from tgen.cli.remote import chosen
from tgen.cli.remote_batch import RemoteAnswers
from tgen.errors import UsageError
from tgen.options import GuessOptions, RunOptions
from tgen.ui import messages
from tgen.ui.counting import counting
from tgen.ui.terminal import is_terminal

if TYPE_CHECKING:
    from tgen.cli.remote_client import Remote

BATCHES = "Batches"
SOME_FAILED = 7
DECLARATIONS = {
    "overflow": {
        "help": "What to do if prompt and new tokens exceed the context. error: answer with an error if the prompt leaves no room, else "
        "write fewer tokens and warn. truncate-left: drop the prompt's oldest tokens. shrink: as error, without the warning."
    },
    "samples": {"help": "Answers to each line."},
    "logprobs": {"help": "Log-probabilities of each token and the N likeliest, of the model's raw distribution before sampling."},
}


@p.takes(but=DECLARATIONS)
def batch(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="JSON lines, one file after another; none or - is standard input.")
    ] = None,
    output: Annotated[
        Path | None, p.option("--output", "-o", panel=BATCHES, metavar="FILE", help="Write to a file that --resume can go on with.")
    ] = None,
    resume: Annotated[
        bool,
        p.option("--resume", panel=BATCHES, help="Go on after the records in --output; with the same input, each line gets exactly one."),
    ] = False,
    retry_errors: Annotated[
        bool,
        p.option(
            "--retry-errors",
            panel=BATCHES,
            help="Implies --resume: ask the lines again that have an error in --output, and replace their records.",
        ),
    ] = False,
    unordered: Annotated[
        bool, p.option("--unordered", panel=BATCHES, help="Write each record as soon as it is done, instead of in the order of the input.")
    ] = False,
    batch_size: Annotated[
        int, p.option("--batch-size", "-b", panel=BATCHES, metavar="INT", limits="1 or more", default=16, help="Rows computed at once.")
    ] = 16,
    shard: Annotated[
        str | None,
        p.option("--shard", panel=BATCHES, metavar="I/N", help="Answer every N-th line from line I on: the share of one of N machines."),
    ] = None,
    cluster: Annotated[
        str | None,
        p.option(
            "--ray", panel=BATCHES, metavar="ADDRESS", help="Answer on all nodes of a Ray cluster: its address, or auto. Needs tgen[ray]."
        ),
    ] = None,
    template_arg: p.TemplateArg = None,
    *,
    asked: p.Asked,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    run: RunOptions,
    guessing: GuessOptions,
    server: p.Server = None,
) -> int:
    """Answer JSON lines with JSON lines, many rows at once. Each text is the one that tgen generate writes with the same seed.

    A line is {"prompt": "..."} or {"messages": [...]}, with an optional "id" and any option by its name, such as "max_new_tokens",
    which overrides the command's. Or it is a line of OpenAI's batches: {"custom_id": "...", "url": "/v1/completions", "body": {...}}.
    Each answer has the number of its line. A line that fails is answered by its error, and the others go on.

    The exit code is 7 while the output holds errors: those of this run and, with --resume, those of earlier ones. --retry-errors asks
    the failed lines again. An error record stays in the output until the new record is written; when the run ends, however it
    ends, or at the next --resume after a kill, each line has one record again, in the order of the input unless --unordered.

    --shard I/N takes every N-th line, for array jobs; --ray lets the nodes of a Ray cluster answer, and --server a running `tgen serve`.
    Each writes the records that one machine writes, and --resume works alike.

    --seed is every line's seed, unless it has its own. Each beam (--num-beams, or the model's default) counts as a row.
    Ctrl-C or a kill loses only answers that are not finished yet.
    """
    p.check_least("--batch-size", batch_size, 1)
    output = None if output == Path("-") else output
    if (resume or retry_errors) and output is None:
        raise UsageError(f"{'--resume' if resume else '--retry-errors'} needs --output", "name the file that the run wrote")
    inputs = files or []
    for file in inputs:
        if output is not None and output.exists() and file.exists() and output.samefile(file):
            raise UsageError(f"--output {output} is the input, too", "name another file")
    share = EVERY if shard is None else read_shard(shard)
    remote = chosen(server, model, ("decoder-only", "encoder-decoder"), run, guessing)
    if cluster is not None and remote is not None:
        raise UsageError("--ray and --server exclude each other", "give one of them")
    streams = open_inputs(inputs, "name a file of JSON lines, or pipe them in")
    with Interrupts() as interrupts:
        journal = Journal(
            output, resume=resume or retry_errors, retry_errors=retry_errors, ordered=not unordered, cancelled=interrupts.asked
        )
        with journal:
            source: Answers
            if remote is not None:
                source, name = _remote_answers(remote, model, asked, template_arg or [])
            elif cluster is not None:
                name = model or os.environ.get("TGEN_MODEL") or open_checkpoint(model, adapters=run.adapter).name
                source = _cluster_answers(cluster, partial(open_answerer, model, asked, run, guessing, template_arg), run)
            else:
                source = open_answerer(model, asked, run, guessing, template_arg)
                name = source.name
            if journal.last is not None and journal.last.model not in (None, name):
                messages.warning(f"{output} was begun with {journal.last.model}, and goes on with {name}")
            answers = BatchRun(source, journal, ordered=not unordered, size=batch_size, shard=share)
            started = time.perf_counter()
            total = count_lines(inputs) if is_terminal(sys.stderr) else None
            with counting("lines", total, start=answers.done, writing=output is None) as bar:
                for _ in answers.run(streams, interrupts.asked):
                    bar.reach(answers.done, _speed(answers, started))
    if is_terminal(sys.stderr):
        failed = f" ({answers.failed:,} failed)" if answers.failed else ""
        messages.dim(f"{answers.count:,} lines{failed} · {_speed(answers, started)}")
    return _end(journal, interrupts, output)


def open_answerer(
    model: str | None, asked: p.Asked, run: RunOptions, guessing: GuessOptions, template_arg: Sequence[str] | None
) -> Answerer:
    """The model that answers lines in this process. Raises TgenError."""
    checkpoint = open_checkpoint(model, adapters=run.adapter)
    if template_arg:
        chat_template(checkpoint, template_arg)  # a wrong argument is an error of the command, not of each line
    generator, name = open_generator(model, run, checkpoint, guessing)
    return Answerer(generator, name, partial(chat_template, checkpoint, template_arg), asked.values, asked.environment)


def _cluster_answers(address: str, open_one: Callable[[], Answerer], run: RunOptions) -> Answers:
    from tgen.batch.cluster import ClusterAnswers

    return ClusterAnswers(address, open_one, run.threads)


def _remote_answers(remote: Remote, model: str | None, asked: p.Asked, template_arg: Sequence[str]) -> tuple[Answers, str]:
    """An object that lets a server answer lines, and the name of the model in the records. Raises TgenError."""
    options = {"values": asked.values, "environment": asked.environment}
    described = remote.describe(options)
    name = model or os.environ.get("TGEN_MODEL") or described.name
    return RemoteAnswers(remote, {**options, "name": name, "template_arg": template_arg}), name


def _end(journal: Journal, interrupts: Interrupts, output: Path | None) -> int:
    """Say how the run ended and what to do next. Returns the exit code."""
    if interrupts.exit_code is not None:
        if output is not None:
            messages.note(f"the same command with --resume goes on with {output}")
        return interrupts.exit_code
    if not journal.failed:
        return 0
    again = "" if output is None else "; --retry-errors asks those lines again"
    messages.error(f"{journal.failed:,} of {journal.count:,} lines failed", f"each is answered by a record with its error{again}")
    return SOME_FAILED


def _speed(batch_run: BatchRun, started: float) -> str:
    seconds = time.perf_counter() - started
    return f"{batch_run.count / seconds:.1f} lines/s · {batch_run.tokens / seconds:,.0f} tokens/s"
