"""The options that commands share, each declared once. Knows names and help texts; ranges and defaults come from the option records."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from tgen.options import Device, Dtype, GenerationOptions, Overflow, RunOptions
from tgen.ui.terminal import Color

SAMPLING, OUTPUT, RUNNING, PROMPT = "Sampling (in this order)", "Output", "Running", "Prompt"


def _option(*names: str, help: str, panel: str, record: type = GenerationOptions) -> Any:  # noqa: A002
    """An option whose help ends in its range and default, both read from the record's field of the same name."""
    field = next((f for f in fields(record) if f.name == names[0].removeprefix("--").replace("-", "_")), None)
    if field is not None and field.metadata:
        low, high, above = field.metadata["low"], field.metadata["high"], field.metadata["above"]
        if high != float("inf") and high < 2**32:
            limits = f"{low:g} to {high:g}"
        elif low != -float("inf"):
            limits = f"above {low:g}" if above else f"{low:g} or more"
        else:
            limits = "any number"
        default = "" if field.default is None else f"; default: the model's, else {field.default:g}"
        if field.name in ("samples", "presence_penalty", "frequency_penalty"):
            default = f"; default {field.default:g}"
        help = f"{help} [{limits}{default}]"  # noqa: A001
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)


Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="PATH|NAME", show_default=False, rich_help_panel=RUNNING,
        help="A Hugging Face folder, a shipped name, or org/name in the Hugging Face cache. [default: $TGEN_MODEL, else the shipped model]",
    ),
]  # fmt: skip
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read the prompt from a file.", rich_help_panel=PROMPT, show_default=False),
]
MaxNewTokens = Annotated[
    int | None,
    _option("--max-new-tokens", "-n", "--max-tokens", "--n-predict", help="Stop after this many tokens.", panel=OUTPUT),
]
RepetitionPenalty = Annotated[
    float | None,
    _option(
        "--repetition-penalty", "--repeat-penalty", panel=SAMPLING,
        help="1st: divide positive and multiply negative logits of tokens already in prompt or output; 1 is off.",
    ),
]  # fmt: skip
PresencePenalty = Annotated[
    float | None, _option("--presence-penalty", help="2nd: subtract from tokens already in the output; 0 is off.", panel=SAMPLING)
]
FrequencyPenalty = Annotated[
    float | None, _option("--frequency-penalty", help="2nd: subtract once for each time in the output; 0 is off.", panel=SAMPLING)
]
Temperature = Annotated[
    float | None,
    _option("--temperature", "--temp", help="3rd: divide the logits; 0 takes the likeliest token and skips the rest.", panel=SAMPLING),
]
TopK = Annotated[int | None, _option("--top-k", help="4th: keep the k likeliest tokens; 0 is off.", panel=SAMPLING)]
TopP = Annotated[
    float | None, _option("--top-p", help="5th: keep the smallest set of tokens whose probabilities sum to p; 1 is off.", panel=SAMPLING)
]
MinP = Annotated[
    float | None, _option("--min-p", help="6th: drop tokens less than p times as likely as the likeliest; 0 is off.", panel=SAMPLING)
]
Seed = Annotated[
    int | None,
    _option("--seed", help="The random stream; the same seed gives the same text. Without it one is chosen and shown.", panel=SAMPLING),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", help="End before this text; may be given several times.", rich_help_panel=OUTPUT, show_default=False
    ),
]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on after end tokens.", rich_help_panel=OUTPUT)]
Samples = Annotated[
    int | None, _option("--samples", "--num-return-sequences", help="How many continuations, computed together.", panel=OUTPUT)
]
Echo = Annotated[bool, typer.Option("--echo", help="Write the prompt before its continuation.", rich_help_panel=OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.", rich_help_panel=OUTPUT)]
Logprobs = Annotated[
    int | None,
    _option(
        "--logprobs", panel=OUTPUT,
        help="With --json: log-probabilities of each token and the N likeliest, of the model's raw distribution before sampling.",
    ),
]  # fmt: skip
ShowProbs = Annotated[
    bool,
    typer.Option(
        "--show-probs", help="Colour each token by its raw probability; without colour, list them on stderr.", rich_help_panel=OUTPUT
    ),
]
OverflowOption = Annotated[
    Overflow | None,
    typer.Option(
        "--overflow", show_default=False, rich_help_panel=PROMPT,
        help="A prompt that leaves no room: error (exit 5), or truncate-left, which drops its oldest tokens. New tokens that "
        "do not fit are not written; shrink says nothing about it. [default: error]",
    ),
]  # fmt: skip
FailOnLength = Annotated[
    bool, typer.Option("--fail-on-length", help="Exit 6 if the text was cut by --max-new-tokens or the context.", rich_help_panel=OUTPUT)
]
DeviceOption = Annotated[
    Device | None,
    typer.Option(
        "--device",
        help="Where to compute. [default: auto: cuda, mps, cpu, the first there is]",
        rich_help_panel=RUNNING,
        show_default=False,
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype", help="Number format. [default: auto: float32 on a CPU, else as stored]", rich_help_panel=RUNNING, show_default=False
    ),
]
Threads = Annotated[int | None, _option("--threads", "-t", help="CPU threads; default: all cores.", panel=RUNNING, record=RunOptions)]
ColorOption = Annotated[
    Color,
    typer.Option(
        "--color",
        help="Colour; before NO_COLOR, FORCE_COLOR and what the stream is. [default: auto]",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No statistics, notes or warnings on stderr.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every effective value and its source on stderr.", rich_help_panel=OUTPUT)
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Send control characters in the text to the terminal as they are.", rich_help_panel=OUTPUT)
]
