"""`tgen bench`: how fast a model runs on this machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_checkpoint
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

HEADINGS = ("context", "prefill tokens/s", "first token ms", "decode tokens/s", "of bandwidth", "peak MB")


def bench(
    context: Annotated[
        list[int] | None,
        typer.Option(
            "--context", "-c", min=1, help="Tokens before the first new one; repeatable. [default: 64 and 1000]", show_default=False
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", min=1, help="Decode steps in each run.")] = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs; medians are shown.")] = 5,
    json: p.Json = False,
    model: p.Model = None,
    device: p.DeviceOption = None,
    dtype: p.DtypeOption = None,
    threads: p.Threads = None,
) -> int:
    """Measure prefill and decode speed, time to first token, peak memory, and the share of the machine's read bandwidth that decode uses.

    Random ids are read and written, so nothing depends on a text. Lengths of context take turns, and medians are shown.
    """
    messages.configure("auto", quiet=False)
    options = RunOptions(device or "auto", dtype or "auto", threads)
    checkpoint = chosen_checkpoint(model)
    limit = checkpoint.spec.context
    contexts = sorted(set(context)) if context else [length for length in (64, 1000) if length + new_tokens <= limit] or [limit // 2]
    if contexts[-1] + new_tokens > limit:
        raise UsageError(f"--context {contexts[-1]} and {new_tokens} new tokens do not fit the model's context of {limit}")

    from tgen.runtime.measure import measure, read_bandwidth
    from tgen.runtime.open import describe, open_model

    loaded = open_model(checkpoint, options)
    rows = list(measure(loaded, contexts, new_tokens, repeats))
    bandwidth = read_bandwidth()  # last: it takes memory of its own
    if json:
        write_json(
            {
                "model": checkpoint.name,
                "runs_on": describe(loaded),
                "bytes_per_second": bandwidth,
                "results": [dataclasses.asdict(r) for r in rows],
            }
        )
        return 0
    messages.dim(f"{checkpoint.name} on {describe(loaded)}; memory reads {bandwidth / 1e9:.1f} GB/s; medians of {repeats}")
    table = [
        (
            f"{row.context}",
            f"{row.prefill_speed:.0f}",
            f"{row.first_token_seconds * 1e3:.1f}",
            f"{row.decode_speed:.1f}",
            f"{row.bytes_per_second / bandwidth:.0%}",
            f"{row.peak_memory / 1e6:.0f}",
        )
        for row in rows
    ]
    write_text(
        "".join(
            "  ".join(f"{cell:>{len(heading)}}" for cell, heading in zip(line, HEADINGS, strict=True)) + "\n" for line in [HEADINGS, *table]
        )
    )
    return 0
