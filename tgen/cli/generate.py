"""`tgen generate`: continue a prompt."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.asked import asked_options
from tgen.cli.interrupts import Interrupts
from tgen.cli.model import chat_template, chosen_checkpoint, open_generator
from tgen.cli.prompt import PromptSource, check_encoding
from tgen.errors import UsageError
from tgen.events import Started
from tgen.options import Resolved, RunOptions
from tgen.ui import messages
from tgen.ui.output import open_stdout
from tgen.ui.report import Report, Sink, show_settings
from tgen.ui.stream import SampleStream, open_stream
from tgen.ui.terminal import Color, wants_color
from tgen.wire.result import JsonResult

if TYPE_CHECKING:
    from tgen.engine.generator import Generator
    from tgen.engine.prefix import Memory
    from tgen.engine.prompt_cache import PromptCache
    from tgen.text.chat import ChatTemplate


@dataclass(frozen=True, slots=True)
class Request:
    """The prompt as it was given, what turns it into a message if that is wished for, and where its cache is kept."""

    prompt: str
    template: ChatTemplate | None
    system: str | None
    cache: PromptCache | None

    def ids(self, generator: Generator) -> str | list[int]:
        """What the model is to read."""
        if self.template is None:
            return self.prompt
        from tgen.text.chat import Message

        head = [] if self.system is None else [Message("system", self.system)]
        return self.template.encode(generator.tokenizer, [*head, Message("user", self.prompt)])[0]

    def words(self) -> list[str]:
        """The options that say so."""
        if self.template is None:
            return []
        arguments = [word for name, value in self.template.arguments.items() for word in ("--template-arg", f"{name}={dumps(value)}")]
        return ["--chat", *(["--system", self.system] if self.system is not None else []), *arguments]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the result is to be shown."""

    echo: bool
    json: bool
    show_probs: bool
    raw: bool
    color: Color
    fail_on_length: bool
    verbose: bool


def generate(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The text to continue; - is standard input.")] = None,
    file: p.File = None,
    chat: p.Chat = False,
    system: p.System = None,
    template_arg: p.TemplateArg = None,
    overflow: p.OverflowOption = None,
    max_new_tokens: p.MaxNewTokens = None,
    repetition_penalty: p.RepetitionPenalty = None,
    presence_penalty: p.PresencePenalty = None,
    frequency_penalty: p.FrequencyPenalty = None,
    no_repeat_ngram_size: p.NoRepeatNgramSize = None,
    num_beams: p.NumBeams = None,
    temperature: p.Temperature = None,
    top_k: p.TopK = None,
    top_p: p.TopP = None,
    min_p: p.MinP = None,
    seed: p.Seed = None,
    stop: p.Stop = None,
    ignore_eos: p.IgnoreEos = False,
    json_schema: p.JsonSchema = None,
    regex: p.Regex = None,
    choices: p.Choices = None,
    samples: p.Samples = None,
    echo: p.Echo = False,
    json: p.Json = False,
    logprobs: p.Logprobs = None,
    show_probs: p.ShowProbs = False,
    fail_on_length: p.FailOnLength = False,
    color: p.ColorOption = "auto",
    quiet: p.Quiet = False,
    verbose: p.Verbose = False,
    raw: p.Raw = False,
    model: p.Model = None,
    device: p.DeviceOption = None,
    dtype: p.DtypeOption = None,
    threads: p.Threads = None,
    prompt_cache: p.PromptCacheFile = None,
) -> int:
    """Continue a prompt, streaming the text to standard output and nothing else.

    The prompt is PROMPT, or --file, or standard input; standard input and PROMPT together are joined by a newline (in a `while read` loop,
    </dev/null keeps the loop's lines). One newline at the very end of a file or of standard input is not part of it.

    Each sampling option and --max-new-tokens has an environment variable (TGEN_TOP_K ...), which goes before the model's
    generation_config.json.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 the model is missing, damaged or unsupported, 4 out of memory, 5 the prompt does not fit,
    6 cut by length under --fail-on-length, 130 interrupted, 143 terminated.
    """
    values = locals()
    messages.configure(color, quiet)
    asked = asked_options({**values, "logprobs": 0 if logprobs is None and show_probs else logprobs})
    if logprobs is not None and not json:
        raise UsageError("--logprobs needs --json", "for eyes there is --show-probs")
    check_encoding("--system", system or "")
    run_options = RunOptions(device or "auto", dtype or "auto", threads)
    source = PromptSource(prompt, file)
    open_stdout()
    checkpoint = chosen_checkpoint(model)
    template = chat_template(checkpoint, template_arg) if chat or system is not None or template_arg else None
    cache = None
    if prompt_cache is not None:
        from tgen.engine.prompt_cache import PromptCache

        cache = PromptCache(prompt_cache, checkpoint)
    generator, name = open_generator(model, run_options, checkpoint)
    wishes = Wishes(echo, json, show_probs, raw, color, fail_on_length, verbose)
    request = Request(source.read(), template, system, cache)
    return _show(generator, name, request, generator.resolve(asked, os.environ), wishes, run_options)


def _show(generator: Generator, name: str, request: Request, resolved: Resolved, wishes: Wishes, run_options: RunOptions) -> int:
    """Generate, and hand the events to what was wished for."""
    prompt, ids = request.prompt, request.ids(generator)
    report = Report()
    sink: Sink
    if wishes.json:
        sink = JsonResult(name, prompt if wishes.echo else "")
    else:
        sink = SampleStream(
            open_stream(wishes.color, echo=wishes.echo, raw=wishes.raw, show_probs=wishes.show_probs), prompt, resolved.options.samples
        )
    try:
        with _remembered(generator, request.cache, report) as memory, Interrupts() as interrupts:
            for event in generator.run(ids, resolved, interrupts.asked, memory=memory):
                report.add(event)
                if wishes.verbose and isinstance(event, Started):
                    show_settings(name, prompt, resolved, event, run_options, request.words())
                sink.add(event)
    except BaseException:
        report.close()
        sink.abandon()
        raise
    sink.close()
    report.show(wishes.verbose)
    if wishes.show_probs and not wants_color(sys.stdout, wishes.color):
        report.show_probabilities()
    if interrupts.exit_code is not None:
        return interrupts.exit_code
    return 6 if wishes.fail_on_length and report.cut_by_length else 0


@contextmanager
def _remembered(generator: Generator, cache: PromptCache | None, report: Report) -> Iterator[Memory | None]:
    """The memory behind --prompt-cache. What it read of the prompt is stored however the text ends, but not before."""
    if cache is None:
        yield None
        return
    from tgen.engine.prefix import Memory

    memory = Memory(generator.open_session, generator.context)
    if problem := cache.load(memory):
        messages.note(problem)
    try:
        yield memory
    finally:
        if problem := cache.save(memory, report.prompt_tokens):
            messages.warning(problem)
