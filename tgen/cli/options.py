"""The options of commands: typer's view of the option records, and the options that commands share beside them.

A command has the decorator `@takes()` and a keyword parameter of type `Asked`, `RunOptions` or `GuessOptions`; its command line then has
every option that the record declares, in the place of that parameter.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from tgen.cli import settings
from tgen.cli.completion import model_names
from tgen.cli.prompt import check_encoding
from tgen.declaration import BEAMS as BEAMS
from tgen.declaration import OUTPUT as OUTPUT
from tgen.declaration import PROMPT as PROMPT
from tgen.declaration import RUNNING as RUNNING
from tgen.declaration import SAMPLING as SAMPLING
from tgen.declaration import Declaration, flag
from tgen.environment import standing_values
from tgen.errors import UsageError
from tgen.options import (
    GenerationOptions,
    GuessOptions,
    RunOptions,
    check_early,
    settle_guesses,
)
from tgen.ui import messages
from tgen.ui.terminal import Color
from tgen.values import declarations, read_constraint

Command = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line asks of `GenerationOptions`: `values` by their names, and the `environment` that the command heeds, settings too.

    Making one raises UsageError for options that are wrong with every model, before anything heavy is imported.
    """

    values: Mapping[str, Any]
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        check_early(self.values, self.environment)
        constraint = read_constraint(self.values)
        if constraint is not None:
            from tgen.constraint.grammar import check

            if unknown := check(constraint):
                messages.note(f"--json-schema: read as an annotation, which changes nothing: {', '.join(map(json.dumps, unknown))}")

    def preferring(self, **values: Any) -> Asked:
        """A copy with these values for options that the command line leaves out."""
        return replace(self, values={**values, **self.values})


def takes(
    *, only: Sequence[str] = (), without: Sequence[str] = (), but: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options of each record that it has a parameter for.

    `only` names the options of GenerationOptions to take, all if it is empty; `without` names options of any record to leave out; `but`
    overrides fields of declarations, by option. The command's own --color and --quiet also set the colour and quietness of its messages.
    An option of settings.OF_COMMANDS that the command line does not give gets the setting, else the default in the command's signature.
    """
    records: dict[object, type] = {Asked: GenerationOptions, RunOptions: RunOptions, GuessOptions: GuessOptions}
    readers: dict[object, Callable[[Mapping[str, Any]], object]] = {Asked: _asked, RunOptions: run_options, GuessOptions: guess_options}

    def decorate(function: Command) -> Command:
        signature = inspect.signature(function, eval_str=True)
        found: dict[str, list[inspect.Parameter]] = {
            parameter.name: [
                one
                for one in _parameters(records[parameter.annotation], but or {})
                if one.name not in without and not (only and parameter.annotation is Asked and one.name not in only)
            ]
            for parameter in signature.parameters.values()
            if parameter.annotation in records
        }

        @functools.wraps(function)
        def command(**values: Any) -> int:
            settings.check_table(function.__name__, values)
            for name in values.keys() & settings.OF_COMMANDS:
                if values[name] is None:
                    found_setting = settings.value(name)
                    values[name] = signature.parameters[name].default if found_setting is None else found_setting
            messages.configure(values.get("color", "auto"), values.get("quiet", False))
            for text in settings.stray_variables():
                messages.warning(text)
            for name, parameters in found.items():
                given = {parameter.name: values.pop(parameter.name) for parameter in parameters}
                values[name] = readers[signature.parameters[name].annotation](given)
            return function(**values)

        settable = {
            name: parameter.replace(default=None) for name, parameter in signature.parameters.items() if name in settings.OF_COMMANDS
        }
        expanded = [one for name, parameter in signature.parameters.items() for one in found.get(name, [settable.get(name, parameter)])]
        command.__signature__ = signature.replace(parameters=expanded)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in expanded}
        return command

    return decorate


def _parameters(record: type, but: Mapping[str, Mapping[str, Any]]) -> Iterable[inspect.Parameter]:
    """A record's options as parameters for typer; one that is not given has None, or False for a flag."""
    defaults = {one.name: one.default for one in fields(record)}
    for name, declaration in declarations(record).items():
        declaration = replace(declaration, **but.get(name, {}))
        kind: Any = str
        if declaration.choices:
            kind = Literal[declaration.choices]
        elif declaration.repeated:
            kind = list[str]
        elif declaration.number:
            kind = {"INT": int, "FLOAT": float}[declaration.metavar]
        is_flag = not declaration.metavar and kind is str and not declaration.switch
        names = f"{flag(name)}/--no{flag(name)[1:]}" if declaration.switch else flag(name)
        kind = bool if declaration.switch else kind
        shown = option(
            names, *declaration.aliases, help=declaration.help, panel=declaration.panel, limits=declaration.limits(),
            metavar="|".join(declaration.choices) or declaration.metavar or None, default=_default(declaration, defaults.get(name)),
        )  # fmt: skip
        annotation = Annotated[bool, shown] if is_flag else Annotated[kind | None, shown]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if is_flag else None, annotation=annotation)


def _default(declaration: Declaration, value: object) -> object:
    """An option's default as help shows it; None if help shows none."""
    if declaration.default is not None or declaration.choices:
        return declaration.default or value
    if not declaration.number or not isinstance(value, int | float):
        return None
    model = "the model's, else " if declaration.folder else ""
    return f"{model}{value:g}"


def run_options(given: Mapping[str, Any]) -> RunOptions:
    """What the command line, the environment and the settings say about running, as far as the command has the options.

    Raises UsageError.
    """
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None}
    standing = standing_values(RunOptions, settings.environment())
    return RunOptions(**{**{name: value for name, value in standing.items() if name in given}, **asked})


def guess_options(given: Mapping[str, Any]) -> GuessOptions:
    """What the command line, the environment and the settings say about guessing. Raises UsageError."""
    options = settle_guesses(given, settings.environment())
    return options if options.draft_model is None else replace(options, draft_model=settings.unalias(options.draft_model))


def as_it_stands() -> tuple[RunOptions, GuessOptions]:
    """What the environment and the settings alone say about running and guessing. Raises UsageError."""
    return run_options(dict.fromkeys(declarations(RunOptions))), guess_options({})


def _asked(given: Mapping[str, Any]) -> Asked:
    """The options that were given. Raises UsageError for one that is wrong with every model."""
    asked = {name: value for name, value in given.items() if value is not None and value is not False}
    for name, value in asked.items():
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
            check_encoding(flag(name), text)
        if isinstance(value, list):
            asked[name] = tuple(value)
    if "json_schema" in asked:
        asked["json_schema"] = _schema_text(asked["json_schema"])
    if "choices" in asked:
        asked["choices"] = _split_choices(asked["choices"])
    heeded = {spelling for name in given for spelling in (name, f"TGEN_{name.upper()}")}
    return Asked(asked, {name: text for name, text in settings.environment().items() if name in heeded})


def _schema_text(argument: str) -> str:
    """The JSON text of --json-schema: the argument if it starts with { or is `true`, else the content of that file. Raises UsageError."""
    text = argument.strip()
    if text.startswith("{") or text in ("true", "false"):
        return text
    try:
        return Path(argument).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--json-schema: cannot read {argument}: {reason}", "give a file, or JSON text that starts with {") from error


def _split_choices(arguments: Sequence[str]) -> list[str]:
    """The choices of all arguments: each a list with commas or, to have a comma in a choice, a JSON list. Raises UsageError."""
    choices: list[str] = []
    for argument in arguments:
        if argument.lstrip().startswith("["):
            try:
                values = json.loads(argument)
            except ValueError as error:
                raise UsageError(f"--choices is not a JSON list: {error}", "a list without brackets is split at its commas") from error
            choices += values
        else:
            choices += argument.split(",")
    return choices


def option(
    *names: str,
    help: str,  # noqa: A002
    panel: str,
    metavar: str | None = None,
    limits: str = "",
    default: object = None,
    completes: Callable[[str], Iterable[str]] | None = None,
) -> Any:
    """An option whose help ends in its range and default; `completes` gives the values that begin with a text."""
    notes = [limits] if limits else []
    notes += [] if default is None else [f"default: {default}"]
    text = f"{help} [{'; '.join(notes)}]" if notes else help
    completes = model_names if metavar == "PATH|NAME" else completes
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False, autocompletion=completes)


def converted(value: Any, kind: Any, name: str) -> Any:
    """A value of the command line in its parameter's type: a list, a Literal, or a class that takes a text. Raises UsageError."""
    if get_origin(kind) is list:
        return [converted(one, get_args(kind)[0], name) for one in value or ()]
    if value is None or (get_origin(kind) is Literal and value in get_args(kind)):
        return value
    if get_origin(kind) is Literal:
        raise UsageError(f"{name}: {value!r} is not one of {', '.join(map(repr, get_args(kind)))}")
    try:
        return kind(value)
    except ValueError as error:
        raise UsageError(f"{name} must be {'a whole' if kind is int else 'a'} number, not {value!r}") from error


def check_least(name: str, value: int, least: int) -> None:
    """Raise UsageError for a number that is too small."""
    if value < least:
        raise UsageError(f"{name} must be {least} or more, not {value}")


def refuse_empty_values(parameters: Iterable[Any], given: Mapping[str, Any]) -> None:
    """Raise UsageError for an empty value among those `given` on a command line, before any is converted.

    An empty value mostly comes from an unset variable, and as a path it would be the current folder. Only a text to work on may be empty.
    """
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        if is_argument and parameter.metavar not in ("FILE", "MODEL", "FOLDER", "COMMAND"):
            continue
        values = given.get(parameter.name)
        if "" in (values if isinstance(values, list | tuple) else [values]):
            name = parameter.metavar if is_argument else parameter.opts[0]
            raise UsageError(f"{name} must not be empty", "give a value, or leave it out; a shell variable there may be unset")


Model = Annotated[
    str | None,
    option(
        "--model", "-m", panel=RUNNING, metavar="PATH|NAME", default="$TGEN_MODEL, else the settings', else the shipped model",
        help="A Hugging Face folder, a GGUF file, a shipped name, org/name in the Hugging Face cache, or an alias of the settings.",
    ),
]  # fmt: skip
Server = Annotated[
    str | None,
    option(
        "--server", panel=RUNNING, metavar="URL", default="$TGEN_SERVER, else the settings', else none",
        help="Let a running `tgen serve` compute, with the model that it has in memory: http://HOST:PORT, unix:PATH, auto for the one "
        "that `tgen serve --detach` started, or none to compute here.",
    ),
]  # fmt: skip
File = Annotated[Path | None, option("--file", "-f", panel=PROMPT, metavar="FILE", help="Read the text from a file; - is standard input.")]
Chat = Annotated[bool, option("--chat", panel=PROMPT, help="The prompt is a message to a chat model: render the folder's chat template.")]
TemplateArg = Annotated[
    list[str] | None,
    option(
        "--template-arg", panel=PROMPT, metavar="KEY=VALUE",
        help="A variable of the chat template, such as enable_thinking=false; VALUE is JSON, or else text. May be given several times.",
    ),
]  # fmt: skip
System = Annotated[str | None, option("--system", panel=PROMPT, metavar="TEXT", help="The system message of a chat; implies --chat.")]
SystemOfChat = Annotated[str | None, option("--system", panel=PROMPT, metavar="TEXT", help="The system message.")]
VerboseOfChat = Annotated[bool, option("--verbose", "-v", panel=OUTPUT, help="Show statistics on stderr even if it is not a terminal.")]
PromptCacheFile = Annotated[
    Path | None,
    option(
        "--prompt-cache", panel=RUNNING, metavar="FILE",
        help="Keep the KV cache of the prompt in a file: for a later prompt with the same beginning, the model reads only the rest.",
    ),
]  # fmt: skip
Echo = Annotated[bool, option("--echo", panel=OUTPUT, help="Write the prompt before its continuation, into a pipe or file too.")]
Json = Annotated[bool, option("--json", panel=OUTPUT, help="Write JSON, on one line.")]
ShowProbs = Annotated[
    bool,
    option(
        "--show-probs", panel=OUTPUT,
        help="Colour each token by its raw probability, red to green; without colour, list the first sample's on stderr.",
    ),
]  # fmt: skip
Markdown = Annotated[
    bool,
    option(
        "--markdown/--no-markdown", panel=OUTPUT, default="off",
        help="On a terminal, lay out Markdown: each block appears when it is complete.",
    ),
]  # fmt: skip
Reasoning = Annotated[
    bool,
    option(
        "--reasoning/--no-reasoning", panel=OUTPUT, default="on",
        help="Show what a model writes between think tags before its answer, dim on a terminal; --no-reasoning leaves it out everywhere.",
    ),
]  # fmt: skip
FailOnLength = Annotated[
    bool, option("--fail-on-length", panel=OUTPUT, help="Exit 6 if the text was cut by --max-new-tokens, --max-time or the context.")
]
ColorOption = Annotated[
    Color,
    option(
        "--color", panel=OUTPUT, metavar="|".join(get_args(Color)), default="auto: on a terminal",
        help="Colour and dimming; overrides NO_COLOR and FORCE_COLOR.",
    ),
]  # fmt: skip
Quiet = Annotated[bool, option("--quiet", "-q", panel=OUTPUT, help="Write only errors to stderr, no statistics, notes or warnings.")]
Verbose = Annotated[
    bool,
    option(
        "--verbose", "-v", panel=OUTPUT, help="Show on stderr every value with its source, a command that repeats the text, and statistics."
    ),
]
Raw = Annotated[bool, option("--raw", panel=OUTPUT, help="Send control characters unchanged to a terminal, as always to a pipe.")]
