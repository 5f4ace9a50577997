"""The options that commands share, each declared once. Knows names and help texts; ranges and defaults come from the option records."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from tgen.errors import UsageError
from tgen.options import FROM_MODEL, Device, Dtype, GenerationOptions, Overflow, RunOptions
from tgen.ui.terminal import Color

SAMPLING, OUTPUT, RUNNING, PROMPT = "Sampling (in this order)", "Output", "Running", "Prompt"
BEAMS = "Beam search"


def option(*names: str, help: str, panel: str, metavar: str | None = None, limits: str = "", default: object = None) -> Any:  # noqa: A002
    """An option whose help ends in its range and default."""
    notes = [limits] if limits else []
    notes += [] if default is None else [f"default: {default}"]
    text = f"{help} [{'; '.join(notes)}]" if notes else help
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False)


def _option(*names: str, help: str, panel: str, record: type = GenerationOptions) -> Any:  # noqa: A002
    """The same for a number, with range and default read from the record's field of the same name."""
    field = next(f for f in fields(record) if f.name == names[0].removeprefix("--").replace("-", "_"))
    low, high, above = field.metadata["low"], field.metadata["high"], field.metadata["above"]
    if high != float("inf") and high < 2**32:
        limits = f"{low:g} to {high:g}"
    elif low != -float("inf"):
        limits = f"above {low:g}" if above else f"{low:g} or more"
    else:
        limits = "any number"
    model = "the model's, else " if field.name in FROM_MODEL else ""
    default = None if field.default is None else f"{model}{field.default:g}"
    metavar = "INT" if field.metadata["whole"] else "FLOAT"
    return option(*names, help=help, panel=panel, metavar=metavar, limits=limits, default=default)


def check_least(name: str, value: int, least: int) -> None:
    """Raise UsageError for a number that is too small."""
    if value < least:
        raise UsageError(f"{name} must be {least} or more, not {value}")


Model = Annotated[
    str | None,
    option(
        "--model", "-m", panel=RUNNING, metavar="PATH|NAME", default="$TGEN_MODEL, else the shipped model",
        help="A Hugging Face folder, a shipped name, or org/name in the Hugging Face cache.",
    ),
]  # fmt: skip
File = Annotated[Path | None, option("--file", "-f", panel=PROMPT, metavar="FILE", help="Read the text from a file; - is standard input.")]
Chat = Annotated[bool, option("--chat", panel=PROMPT, help="The prompt is a message to a chat model: render the folder's chat template.")]
System = Annotated[
    str | None, option("--system", panel=PROMPT, metavar="TEXT", help="What a chat model is told before everything; implies --chat.")
]
SystemOfChat = Annotated[str | None, option("--system", panel=PROMPT, metavar="TEXT", help="What the model is told before everything.")]
OverflowOfChat = Annotated[
    Overflow | None,
    option(
        "--overflow", panel=PROMPT, metavar="|".join(get_args(Overflow)), default="error",
        help="What if the conversation exceeds the context: an error (so is shrink), after which it goes on; truncate-left leaves out the "
        "oldest turns, but never the system message.",
    ),
]  # fmt: skip
MaxNewTokensOfChat = Annotated[
    int | None,
    option(
        "--max-new-tokens", "-n", "--max-tokens", "--n-predict", panel=OUTPUT, metavar="INT", limits="1 or more",
        default="the model's, else what the context has room for", help="Stop an answer after this many tokens.",
    ),
]  # fmt: skip
SeedOfChat = Annotated[
    int | None,
    option(
        "--seed", panel=SAMPLING, metavar="INT", limits="0 or more",
        help="The random stream of the first answer; each later one has the next number. Without it they are chosen and shown.",
    ),
]  # fmt: skip
VerboseOfChat = Annotated[bool, option("--verbose", "-v", panel=OUTPUT, help="Statistics on stderr even where it is no terminal.")]
PromptCacheFile = Annotated[
    Path | None,
    option(
        "--prompt-cache", panel=RUNNING, metavar="FILE",
        help="Keep the KV cache of the prompt in a file: a later prompt that begins alike is read from there on.",
    ),
]  # fmt: skip
MaxNewTokens = Annotated[
    int | None, _option("--max-new-tokens", "-n", "--max-tokens", "--n-predict", panel=OUTPUT, help="Stop after this many tokens.")
]
RepetitionPenalty = Annotated[
    float | None,
    _option(
        "--repetition-penalty", "--repeat-penalty", panel=SAMPLING,
        help="1st: divide positive and multiply negative logits of tokens already in prompt or output; 1 is off.",
    ),
]  # fmt: skip
PresencePenalty = Annotated[
    float | None, _option("--presence-penalty", panel=SAMPLING, help="2nd: subtract from tokens already in the output; 0 is off.")
]
FrequencyPenalty = Annotated[
    float | None, _option("--frequency-penalty", panel=SAMPLING, help="2nd: subtract once for each time in the output; 0 is off.")
]
NoRepeatNgramSize = Annotated[
    int | None,
    _option("--no-repeat-ngram-size", panel=SAMPLING, help="Never complete a sequence of this many tokens a second time; 0 is off."),
]
NumBeams = Annotated[
    int | None,
    _option("--num-beams", panel=BEAMS, help="Keep the likeliest few texts at each step, instead of sampling; the text comes at the end."),
]
Temperature = Annotated[
    float | None,
    _option("--temperature", "--temp", panel=SAMPLING, help="3rd: divide the logits; 0 takes the likeliest token and skips the rest."),
]
TopK = Annotated[int | None, _option("--top-k", panel=SAMPLING, help="4th: keep the k likeliest tokens; 0 is off.")]
TopP = Annotated[
    float | None, _option("--top-p", panel=SAMPLING, help="5th: keep the fewest likeliest tokens whose probabilities sum to p; 1 is off.")
]
MinP = Annotated[
    float | None, _option("--min-p", panel=SAMPLING, help="6th: drop tokens less than p times as likely as the likeliest; 0 is off.")
]
Seed = Annotated[
    int | None,
    _option("--seed", panel=SAMPLING, help="The random stream; the same seed gives the same text. Without it one is chosen and shown."),
]
Stop = Annotated[list[str] | None, option("--stop", panel=OUTPUT, metavar="TEXT", help="End before this text; may be given several times.")]
JsonSchema = Annotated[
    str | None,
    option(
        "--json-schema", panel=OUTPUT, metavar="FILE|JSON",
        help="Write JSON that this schema allows, closed within --max-new-tokens. What cannot be kept is an error. JSON starts with {.",
    ),
]  # fmt: skip
Regex = Annotated[
    str | None, option("--regex", panel=OUTPUT, metavar="RE", help="Write a text that matches as a whole. Rust's syntax, no lookaround.")
]
Choices = Annotated[
    list[str] | None,
    option(
        "--choices", panel=OUTPUT, metavar="A,B,...",
        help='Write one of these; may be given several times. A choice with a comma needs a JSON list: ["a, b","c"].',
    ),
]  # fmt: skip
IgnoreEos = Annotated[bool, option("--ignore-eos", panel=OUTPUT, help="Go on after the model's end tokens, instead of stopping there.")]
Samples = Annotated[
    int | None,
    _option(
        "--samples", "--num-return-sequences", panel=OUTPUT,
        help="How many continuations; they are computed together and written one after another.",
    ),
]  # fmt: skip
Echo = Annotated[bool, option("--echo", panel=OUTPUT, help="Write the prompt before its continuation, into a pipe or file too.")]
Json = Annotated[bool, option("--json", panel=OUTPUT, help="Write JSON, on one line.")]
Logprobs = Annotated[
    int | None,
    _option(
        "--logprobs", panel=OUTPUT,
        help="With --json: log-probabilities of each token and the N likeliest, of the model's raw distribution before sampling.",
    ),
]  # fmt: skip
ShowProbs = Annotated[
    bool,
    option(
        "--show-probs", panel=OUTPUT,
        help="Colour each token by its raw probability, red to green; without colour, list the first sample's on stderr.",
    ),
]  # fmt: skip
OverflowOption = Annotated[
    Overflow | None,
    option(
        "--overflow", panel=PROMPT, metavar="|".join(get_args(Overflow)), default="error",
        help="What if prompt and new tokens exceed the context: a prompt that leaves no room is an error (exit 5), fewer new tokens a "
        "warning; truncate-left drops the prompt's oldest tokens instead; shrink is error without the warning.",
    ),
]  # fmt: skip
FailOnLength = Annotated[
    bool, option("--fail-on-length", panel=OUTPUT, help="Exit 6 if the text was cut by --max-new-tokens or the context.")
]
DeviceOption = Annotated[
    Device | None,
    option(
        "--device", panel=RUNNING, metavar="|".join(get_args(Device)), default="auto: cuda, mps, cpu, the first there is",
        help="Where to compute.",
    ),
]  # fmt: skip
DtypeOption = Annotated[
    Dtype | None,
    option(
        "--dtype", panel=RUNNING, metavar="|".join(get_args(Dtype)),
        default="auto: float32 on a CPU with the memory for it, else as stored", help="Number format.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None, _option("--threads", "-t", panel=RUNNING, record=RunOptions, help="CPU threads; without it, one for each core.")
]
ColorOption = Annotated[
    Color,
    option(
        "--color", panel=OUTPUT, metavar="|".join(get_args(Color)), default="auto: on a terminal",
        help="Colour and dimming; goes before NO_COLOR and FORCE_COLOR.",
    ),
]  # fmt: skip
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUTPUT, help="No statistics, notes or warnings on stderr, only errors.")]
Verbose = Annotated[
    bool,
    option("--verbose", "-v", panel=OUTPUT, help="Show on stderr every value, its source, a command that repeats the text, statistics."),
]
Raw = Annotated[bool, option("--raw", panel=OUTPUT, help="Send control characters to a terminal as they are; a pipe always gets them so.")]
