"""`tgen bench`: measures how fast a model runs on this machine."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tgen.cli import options as p
from tgen.cli.opening import open_checkpoint, require_kind
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.executors.measure import Measurement

MEASURING = "Measuring"
BATCH_HEADINGS = ("rows", "one after another, tokens/s", "at once, tokens/s", "gain")
HEADINGS = ("context", "prefill tokens/s", "first token ms", "decode tokens/s", "of bandwidth", "4 rows", "16 rows", "peak MB")
COLD_STARTS = 3


@p.takes()
def bench(
    context: Annotated[
        list[int] | None,
        p.option(
            "--context",
            "-c",
            panel=MEASURING,
            metavar="INT",
            limits="1 or more",
            default="64 and 1000, if they fit",
            help="Tokens before the first new one; may be given several times.",
        ),
    ] = None,
    new_tokens: Annotated[
        int,
        p.option(
            "--max-new-tokens", "-n", panel=MEASURING, metavar="INT", limits="1 or more", default=24, help="Decode steps in each run."
        ),
    ] = 24,
    repeats: Annotated[
        int,
        p.option("--repeats", panel=MEASURING, metavar="INT", limits="1 or more", default=5, help="Measured runs, after one warm-up run."),
    ] = 5,
    batch: Annotated[
        int | None,
        p.option(
            "--batch",
            "-b",
            panel=MEASURING,
            metavar="INT",
            limits="2 or more",
            help="Measure this many requests instead, one after another and at once, prefill and sampling included.",
        ),
    ] = None,
    json: p.Json = False,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:
    """Measure a decoder-only model: prefill and decode speed, time to first token, peak memory, and the share of the machine's read
    bandwidth that the decode of a single row uses; also the decode speed of 4 and of 16 rows together, and how long a whole
    `tgen generate -n 1` takes as a process of its own.

    The model reads and writes random ids, so nothing depends on a text. The runs of different contexts take turns; the
    table shows medians. With --batch, measure how much faster many rows at once are.
    """
    for name, values in (("--context", context or ()), ("--max-new-tokens", [new_tokens]), ("--repeats", [repeats])):
        for value in values:
            p.check_least(name, value, 1)
    p.check_least("--batch", 2 if batch is None else batch, 2)
    checkpoint = open_checkpoint(model, adapters=run.adapter)
    require_kind(checkpoint, "bench", "decoder-only")
    limit = checkpoint.spec.context
    contexts = sorted(set(context)) if context else [length for length in (64, 1000) if length + new_tokens <= limit] or [limit // 2]
    if batch is not None and context and len(contexts) > 1:
        raise UsageError("--batch takes only one --context", "give --context once, or leave it out")
    if contexts[-1] + new_tokens > limit:
        message = f"--context {contexts[-1]} and {new_tokens} new tokens do not fit the model's context of {limit}"
        raise UsageError(message, "give a smaller --context or --max-new-tokens")

    if batch is not None:
        return _batch(checkpoint, run, batch, contexts[0], new_tokens, repeats, json)

    from tgen.executors.measure import cold_start, measure
    from tgen.executors.open import open_executor

    loaded = open_executor(checkpoint, run)
    rows = list(measure(loaded, checkpoint.spec.vocab, contexts, new_tokens, repeats))
    bandwidth = statistics.median(row.memory_bytes_per_second for row in rows)
    cold = cold_start(_one_token(checkpoint, run), min(repeats, COLD_STARTS))
    if json:
        write_json(
            {
                "model": checkpoint.name,
                "runs_on": loaded.describe(),
                "bytes_per_second": bandwidth,
                "cold_start_seconds": cold,
                "results": [dataclasses.asdict(r) for r in rows],
            }
        )
        return 0
    started = "" if cold is None else f"; a first token from a cold start takes {cold:.2f} s"
    messages.dim(f"{checkpoint.name} with {loaded.describe()}; memory reads {bandwidth / 1e9:.1f} GB/s{started}; medians of {repeats}")
    _write_table(HEADINGS, [_cells(row) for row in rows])
    return 0


def _cells(row: Measurement) -> list[str]:
    return [
        f"{row.context}",
        f"{row.prefill_speed:.0f}",
        f"{row.first_token_seconds * 1e3:.1f}",
        f"{row.decode_speed:.1f}",
        f"{row.share:.0%}",
        *(f"{row.batch_speeds[rows]:.1f}" if rows in row.batch_speeds else "no room" for rows in (4, 16)),
        f"{row.peak_memory / 1e6:.0f}",
    ]


def _one_token(checkpoint: Checkpoint, options: RunOptions) -> list[str]:
    """A command that generates one token with the same options."""
    settings = {name: value for name, value in dataclasses.asdict(options).items() if value is not None and name != "adapter"}
    chosen = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    chosen += [word for adapter in checkpoint.adapters for word in ("--adapter", f"{adapter.folder}={adapter.scale}")]
    return [sys.executable, "-m", "tgen", "generate", "a", "-n", "1", "-q", "-m", str(checkpoint.folder), *chosen]


def _batch(checkpoint: Checkpoint, options: RunOptions, rows: int, context: int, new_tokens: int, repeats: int, json: bool) -> int:
    from tgen.engine.opening import open_generator
    from tgen.tasks.throughput import throughput

    found = throughput(open_generator(checkpoint, options), rows, context, new_tokens, repeats)
    if json:
        write_json({"model": checkpoint.name, "context": context, "new_tokens": new_tokens, **dataclasses.asdict(found)})
        return 0
    messages.dim(f"{checkpoint.name}: {rows} prompts of {context} tokens, {new_tokens} new ones each; medians of {repeats}")
    _write_table(BATCH_HEADINGS, [(f"{rows}", f"{found.one_after_another:.0f}", f"{found.at_once:.0f}", f"{found.gain:.2f}x")])
    return 0


def _write_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, each as wide as its widest cell, with the figures at the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    write_text(
        "".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) + "\n" for line in [headings, *rows])
    )
