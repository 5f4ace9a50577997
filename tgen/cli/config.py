"""`tgen config`: the settings in force, and where each is from."""

from __future__ import annotations

import inspect
import json as json_format
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from typing import Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli import settings
from tgen.cli.completion import command_names
from tgen.environment import environment_values
from tgen.errors import TgenError, UsageError
from tgen.options import GenerationOptions, GuessOptions, RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

RECORDS = (GenerationOptions, RunOptions, GuessOptions)
# Where an unset value comes from, for settings whose default in the record does not show it.
UNSET = {"seed": "chosen anew for each run", "threads": "one for each core", "guess": "where the executor is exact"}


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting as a command sees it; the value None says that nothing is set."""

    value: Any
    source: str


def config(
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", autocompletion=command_names, help="Show the settings as this command has them.", show_default=False
        ),
    ] = None,
    model: p.Model = None,
    json: p.Json = False,
) -> int:
    """Show the settings in force, and where each is from: the environment, the settings file, the model's folder, or tgen itself.

    The settings file is ~/.config/tgen/config.toml ($XDG_CONFIG_HOME), or the file that $TGEN_CONFIG names. It is TOML, and so is what
    this command writes: temperature = 0.7. A setting before the first table is for all commands that have the option, one in a table such
    as [chat] for that command alone, and each line of the table [aliases] gives a model a short name.

    A setting overrides the model's folder; the environment and the command line override a setting. With TGEN_CONFIG=/dev/null there
    are no settings.
    """
    messages.configure("auto", quiet=False)
    taken = None if command is None else _options_of(command)
    settings.running(command or "", settings.commands())
    if command is not None:
        settings.check_table(command, taken or ())
    found = settings.read()
    values = {name: one for name, one in _effective(command, model) if taken is None or name in taken}
    own = {name: {key: one.value for key, one in table.items()} for name, table in found.commands.items()} if command is None else {}
    if json:
        path = None if found.path is None else str(found.path)
        write_json(
            {"file": path, "settings": {name: asdict(one) for name, one in values.items()}, "commands": own, "aliases": found.aliases}
        )
        return 0
    lines = [f"# {found.path or 'no home folder, so no file'}{'' if found.path and found.path.exists() else ' (not there)'}"]
    lines += _aligned([(f"{name} = {_toml(one.value)}", one.source) for name, one in values.items() if one.value is not None])
    lines += _aligned([(f"# {name}", one.source) for name, one in values.items() if one.value is None])
    for name, table in {**own, settings.ALIASES: found.aliases}.items():
        lines += ["", f"[{name}]", *(f"{_key(key)} = {_toml(given)}" for key, given in table.items())] if table else []
    write_text("\n".join(lines) + "\n")
    return 0


def _options_of(command: str) -> set[str]:
    """The settings that a command has options for. Raises UsageError."""
    if command not in settings.commands():
        raise UsageError(f"there is no command {command!r}", "`tgen --help` lists the commands")
    return set(inspect.signature(getattr(import_module(f"tgen.cli.{command}"), command)).parameters)


def _effective(command: str | None, model: str | None) -> Iterator[tuple[str, Effective]]:
    """Each setting with its value and source. Raises UsageError."""
    from_file = settings.in_force()
    name = settings.named_model(model)
    folder = _folder_values(model, translator=command == "translate")
    for setting in settings.SETTINGS:
        variable = f"TGEN_{setting.upper()}"
        from_environment = {key: value for record in RECORDS for key, value in environment_values(record, os.environ).items()}
        if setting == "color" and (override := settings.color_variable()):
            yield setting, Effective("never" if override == "NO_COLOR" else "always", f"environment, {override}")
        elif setting == "model" and model is not None:
            yield setting, Effective(model, "command line")
        elif setting in from_environment or (setting in ("model", "server") and os.environ.get(variable)):
            yield setting, Effective(from_environment.get(setting, os.environ.get(variable)), f"environment, {variable}")
        elif setting in from_file:
            found = from_file[setting]
            yield setting, Effective(found.value, f"settings file{f', line {found.line}' if found.line else ''}")
        elif setting in folder:
            yield setting, Effective(folder[setting], f"folder of {name or 'the shipped model'}")
        else:
            yield setting, _built_in(setting, command)


def _built_in(name: str, command: str | None) -> Effective:
    """What tgen itself has for a setting."""
    from tgen.checkpoint.resolve import DEFAULT_MODEL, DEFAULT_TRANSLATOR

    defaults = {option.name: option.default for record in RECORDS for option in fields(record)}
    defaults |= {"color": "auto", "history": True, "keys": "auto", "model": DEFAULT_TRANSLATOR if command == "translate" else DEFAULT_MODEL}
    value = defaults.get(name)
    return Effective(value, "built-in" if value is not None else UNSET.get(name, "not set"))


def _folder_values(model: str | None, *, translator: bool) -> dict[str, Any]:
    """What the model's generation_config.json sets; nothing, with a warning, for a model that cannot be opened."""
    from tgen.checkpoint.generation import read_generation
    from tgen.cli.opening import open_checkpoint

    try:
        return dict(read_generation(open_checkpoint(model, translator=translator)).options)
    except TgenError as error:
        messages.warning(f"{error.message}, so what its folder sets is not shown")
        return {}


def _aligned(lines: list[tuple[str, str]]) -> list[str]:
    width = max((len(text) for text, _ in lines), default=0)
    return [f"{text:{width}}  # {source}" for text, source in lines]


def _toml(value: object) -> str:
    """A text, a number or a truth value as TOML, which writes them as JSON does."""
    return json_format.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _toml(name)
