"""`tgen generate`: continue a prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Yields
from contextlib import closing, contextmanager
from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Any

from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.opening import chat_template, open_checkpoint, open_generator
from tgen.cli.prompt import PromptArgument, PromptSource, check_encoding
from tgen.cli.remote import chosen
from tgen.cli.settings import named_model
from tgen.errors import UsageError
from tgen.events import Event, Piece, Started
from tgen.options import GuessOptions, Resolved, RunOptions
from tgen.ui import messages
from tgen.ui.output import open_stdout
from tgen.ui.report import Report, Running, Sink, show_settings
from tgen.ui.stream import SampleStream, open_stream
from tgen.ui.terminal import Color, wants_color
from tgen.wire.events import read_event, read_resolved
from tgen.wire.result import JsonResult

if TYPE_CHECKING:
    from tgen.cli.remote_client import Remote
    from tgen.engine.generator import Generator
    from tgen.engine.prefix import Prefix
    from tgen.engine.prompt_cache import PromptCache
    from tgen.text.chat import ChatTemplate


Cancelled = Callable[[], bool]


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
        return _chat_words(self.system, self.template.arguments)


def _chat_words(system: str | None, arguments: Mapping[str, Any]) -> list[str]:
    """The options that ask for a conversation with this system message and these template arguments."""
    words = [word for name, value in arguments.items() for word in ("--template-arg", f"{name}={dumps(value)}")]
    return ["--chat", *(["--system", system] if system is not None else []), *words]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to show the result."""

    echo: bool
    json: bool
    show_probs: bool
    markdown: bool
    reasoning: bool
    raw: bool
    color: Color
    fail_on_length: bool
    verbose: bool

    def words(self) -> list[str]:
        """The options that put more or less than the model's text on standard output."""
        return [*(["--echo"] if self.echo else []), *([] if self.reasoning else ["--no-reasoning"])]


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
    markdown: p.Markdown = False,
    reasoning: p.Reasoning = True,
    fail_on_length: p.FailOnLength = False,
    color: p.ColorOption = "auto",
    quiet: p.Quiet = False,  # noqa: ARG001
    verbose: p.Verbose = False,
    raw: p.Raw = False,
    model: p.Model = None,
    run: RunOptions,
    guessing: GuessOptions,
    prompt_cache: p.PromptCacheFile = None,
    server: p.Server = None,
) -> int:
    """Continue a prompt, streaming the text to standard output and nothing else.

    The prompt is PROMPT, or --file, or standard input; a newline joins standard input and PROMPT if both are there (in a `while read` loop,
    add </dev/null, or the command takes the loop's lines). One newline at the very end of a file or of standard input is not part of it.

    A variable such as TGEN_TOP_K sets an option that the command line leaves out, and overrides the model's generation_config.json.
    --max-new-tokens has one, and so has every sampling option that takes a number.

    Exit codes: 0 done, 1 unexpected, 2 usage, 3 the model is missing, damaged or unsupported, 4 out of memory, 5 the prompt does not fit,
    6 cut by length under --fail-on-length, 130 interrupted, 143 terminated.
    """
    if "logprobs" in asked.values and not json:
        raise UsageError("--logprobs needs --json", "--show-probs shows probabilities to people")
    if show_probs and markdown:
        raise UsageError("--show-probs and --markdown exclude each other", "leave one of them out")
    if show_probs:
        asked = asked.preferring(logprobs=0)
    check_encoding("--system", system or "")
    source = PromptSource(prompt, file)
    open_stdout()
    wishes = Wishes(echo, json, show_probs, markdown, reasoning, raw, color, fail_on_length, verbose)
    chatting = chat or system is not None or bool(template_arg)
    if (remote := chosen(server, model, ("decoder-only", "encoder-decoder"), run, guessing)) is not None:
        if prompt_cache is not None:
            raise UsageError("--prompt-cache and --server exclude each other", "a server keeps the caches of prompts in its memory")
        return _show_remote(remote, model, source.read(), (chatting, system, template_arg or []), asked, wishes, [run, guessing])
    checkpoint = open_checkpoint(model, adapters=run.adapter)
    template = chat_template(checkpoint, template_arg) if chatting else None
    cache = None
    if prompt_cache is not None:
        from tgen.engine.prompt_cache import PromptCache

        cache = PromptCache(prompt_cache, checkpoint, run.quantize)
    generator, name = open_generator(model, run, checkpoint, guessing)
    request = Request(source.read(), template, system, cache)
    resolved = generator.resolve(asked.values, asked.environment)
    ids = request.ids(generator)

    from tgen.text.reasoning import reasoning_of

    marks = reasoning_of(generator.tokenizer, ids, "" if template is None else template.source)

    def events(cancelled: Cancelled, report: Report) -> Yields[Event, None, None]:
        with _remembered(generator, cache, report) as prefix:
            for event in generator.run(ids, resolved, cancelled, prefix=prefix):
                yield from marks.feed(event)

    return _show(events, name, request.prompt, resolved, wishes, [run, guessing], request.words())


def _show_remote(
    remote: Remote,
    model: str | None,
    prompt: str,
    talk: tuple[bool, str | None, list[str]],
    asked: p.Asked,
    wishes: Wishes,
    running: Sequence[Running],
) -> int:
    """Show what a server generates; `talk` says whether to chat, with which system message and template arguments."""
    chatting, system, arguments = talk
    words: list[str] = []
    if chatting:
        from tgen.text.chat import read_arguments

        words = _chat_words(system, read_arguments(arguments))
    options = {"values": asked.values, "environment": asked.environment}
    described = remote.describe(options)
    name = named_model(model) or described.name
    body = {"prompt": prompt, "chat": chatting, "system": system, "template_arg": arguments, **options}

    def events(cancelled: Cancelled, _: Report) -> Yields[Event, None, None]:
        with closing(remote.records("generate", body, cancelled)) as records:
            yield from map(read_event, records)

    resolved = read_resolved(described.resolved)
    return _show(events, name, prompt, resolved, wishes, running, words)


def _show(
    events: Callable[[Cancelled, Report], Yields[Event, None, None]],
    name: str,
    prompt: str,
    resolved: Resolved,
    wishes: Wishes,
    running: Sequence[Running],
    words: Sequence[str],
) -> int:
    """Show the events of a generation as the user wishes."""
    report = Report()
    sink: Sink
    if wishes.json:
        sink = JsonResult(name, prompt if wishes.echo else "")
    else:
        stream = open_stream(wishes.color, echo=wishes.echo, raw=wishes.raw, show_probs=wishes.show_probs, markdown=wishes.markdown)
        sink = SampleStream(stream, prompt, resolved.options.samples)
    try:
        with Interrupts() as interrupts, closing(events(interrupts.asked, report)) as found:
            for event in found:
                report.add(event)
                if wishes.verbose and isinstance(event, Started):
                    show_settings(name, prompt, resolved, event, running, [*words, *wishes.words()])
                if wishes.reasoning or not (isinstance(event, Piece) and event.reasoning):
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
    return 6 if wishes.fail_on_length and report.cut_short else 0


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
