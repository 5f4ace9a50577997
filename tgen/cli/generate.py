"""`tgen generate`: continue a prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING

from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.opening import chat_template, open_checkpoint, open_generator
from tgen.cli.prompt import PromptArgument, PromptSource, check_encoding
from tgen.errors import UsageError
from tgen.events import Started
from tgen.options import GuessOptions, Resolved, RunOptions
from tgen.ui import messages
from tgen.ui.output import open_stdout
from tgen.ui.report import Report, Running, Sink, show_settings
from tgen.ui.stream import SampleStream, open_stream
from tgen.ui.terminal import Color, wants_color
from tgen.wire.result import JsonResult

if TYPE_CHECKING:
    from tgen.engine.generator import Generator
    from tgen.engine.prefix import Prefix
    from tgen.engine.prompt_cache import PromptCache
    from tgen.text.chat import ChatTemplate


@dataclass(frozen=True, slots=True)
class Request:
    """The prompt as it was given, the chat template and system message that make a conversation of it, if any, and its cache."""

    prompt: str
    template: ChatTemplate | None
    system: str | None
    cache: PromptCache | None

    def ids(self, generator: Generator) -> str | list[int]:
        """The model's input: the prompt, or the ids of a conversation."""
        if self.template is None:
            return self.prompt
        from tgen.text.chat import Message

        head = [] if self.system is None else [Message("system", self.system)]
        return self.template.encode(generator.tokenizer, [*head, Message("user", self.prompt)])[0]

    def words(self) -> list[str]:
        """The options that ask for the conversation."""
        if self.template is None:
            return []
        arguments = [word for name, value in self.template.arguments.items() for word in ("--template-arg", f"{name}={dumps(value)}")]
        return ["--chat", *(["--system", self.system] if self.system is not None else []), *arguments]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to show the result."""

    echo: bool
    json: bool
    show_probs: bool
    raw: bool
    color: Color
    fail_on_length: bool
    verbose: bool


@p.takes()
def generate(
    prompt: PromptArgument = None,
    file: p.File = None,
    chat: p.Chat = False,
    system: p.System = None,
    template_arg: p.TemplateArg = None,
    *,
    asked: p.Asked,
    echo: p.Echo = False,
    json: p.Json = False,
    show_probs: p.ShowProbs = False,
    fail_on_length: p.FailOnLength = False,
    color: p.ColorOption = "auto",
    quiet: p.Quiet = False,  # noqa: ARG001
    verbose: p.Verbose = False,
    raw: p.Raw = False,
    model: p.Model = None,
    run: RunOptions,
    guessing: GuessOptions,
    prompt_cache: p.PromptCacheFile = None,
) -> int:
    """Continue a prompt, streaming the text to standard output and nothing else.

    The prompt is PROMPT, or --file, or standard input; a newline joins standard input and PROMPT if both are there (in a `while read` loop,
    add </dev/null, or the command takes the loop's lines). One newline at the very end of a file or of standard input is not part of it.

    Each sampling option and --max-new-tokens has an environment variable (TGEN_TOP_K ...), which overrides the model's
    generation_config.json.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 the model is missing, damaged or unsupported, 4 out of memory, 5 the prompt does not fit,
    6 cut by length under --fail-on-length, 130 interrupted, 143 terminated.
    """
    if "logprobs" in asked.values and not json:
        raise UsageError("--logprobs needs --json", "--show-probs shows probabilities to people")
    if show_probs:
        asked = asked.preferring(logprobs=0)
    check_encoding("--system", system or "")
    source = PromptSource(prompt, file)
    open_stdout()
    checkpoint = open_checkpoint(model)
    template = chat_template(checkpoint, template_arg) if chat or system is not None or template_arg else None
    cache = None
    if prompt_cache is not None:
        from tgen.engine.prompt_cache import PromptCache

        cache = PromptCache(prompt_cache, checkpoint, run.quantize)
    generator, name = open_generator(model, run, checkpoint, guessing)
    wishes = Wishes(echo, json, show_probs, raw, color, fail_on_length, verbose)
    request = Request(source.read(), template, system, cache)
    return _show(generator, name, request, generator.resolve(asked.values, asked.environment), wishes, [run, guessing])


def _show(generator: Generator, name: str, request: Request, resolved: Resolved, wishes: Wishes, running: Sequence[Running]) -> int:
    """Generate, and show the events as the user wishes."""
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
        with _remembered(generator, request.cache, report) as prefix, Interrupts() as interrupts:
            for event in generator.run(ids, resolved, interrupts.asked, prefix=prefix):
                report.add(event)
                if wishes.verbose and isinstance(event, Started):
                    show_settings(name, prompt, resolved, event, running, request.words())
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
def _remembered(generator: Generator, cache: PromptCache | None, report: Report) -> Iterator[Prefix | None]:
    """The prefix behind --prompt-cache. When the text ends, for whatever reason, the part of the prompt that was read is stored."""
    if cache is None:
        yield None
        return
    prefix = generator.prefix()
    if problem := cache.load(prefix):
        messages.note(problem)
    try:
        yield prefix
    finally:
        if problem := cache.save(prefix, report.prompt_tokens):
            messages.warning(problem)
