"""The settings file: standing values of options, for all commands or for one, and short names for models.

The environment overrides it, and so does the command line. It is read when a command first asks for a value.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tgen.declaration import OUTPUT, PROMPT, RUNNING, Declaration, flag
from tgen.errors import UsageError
from tgen.files import decode_text
from tgen.options import GenerationOptions, GuessOptions, RunOptions
from tgen.ui.terminal import Color
from tgen.values import declarations

KEYS = Literal["auto", "emacs", "vi"]
FILE_VARIABLE = "TGEN_CONFIG"
OTHER_VARIABLES = {FILE_VARIABLE, "TGEN_API_KEY", "TGEN_CACHE_GB", "TGEN_NATIVE"}  # variables that no option or setting has
ALIASES = "aliases"
HINT = "`tgen config` lists all settings"
# Options that no record declares. Those of OF_COMMANDS are parameters of commands, which the decorator `takes` fills in.
OF_COMMANDS = {
    "color": Declaration("When to colour and dim.", OUTPUT, choices=get_args(Color)),
    "history": Declaration("Whether tgen chat keeps what you type.", PROMPT, switch=True),
    "markdown": Declaration("Whether to lay out Markdown on a terminal.", OUTPUT, switch=True),
    "reasoning": Declaration("Whether to show a model's reasoning.", OUTPUT, switch=True),
    "keys": Declaration("The keys that edit a message.", PROMPT, choices=get_args(KEYS)),
}
OTHERS = {
    "model": Declaration("The model, but of tgen translate only in the table [translate].", RUNNING, "PATH|NAME"),
    "server": Declaration("The `tgen serve` that computes.", RUNNING, "URL"),
    **OF_COMMANDS,
}
SETTINGS = {
    **OTHERS,
    **{
        name: one
        for record in (GenerationOptions, RunOptions, GuessOptions)
        for name, one in declarations(record).items()
        if one.environment
    },
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and the line of the file that it stands on; 0 if that is not known."""

    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What a settings file says: values for all commands, for single ones, and names of models."""

    path: Path | None = None
    everywhere: Mapping[str, Setting] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


# The command that this process runs, and the names of all commands: a table of the file may have any of these names.
_running: tuple[str, tuple[str, ...]] = ("", ())


def running(command: str, commands: Iterable[str]) -> None:
    """Say which of the commands runs, before anything asks for a setting."""
    global _running
    _running = (command, tuple(commands))


def commands() -> tuple[str, ...]:
    """The names of all commands."""
    return _running[1]


def file_path() -> Path | None:
    """Where the settings are: $TGEN_CONFIG, else tgen/config.toml where XDG has such files; None for a user without a home."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.config")
    return Path(folder) / "tgen" / "config.toml" if os.path.isabs(folder) else None


def read() -> Settings:
    """The settings; none if there is no file. Raises UsageError, naming file and line."""
    path = file_path()
    try:
        found = None if path is None else os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(FILE_VARIABLE):
            raise UsageError(
                f"no settings file {path}", f"{FILE_VARIABLE} names it; without that variable tgen reads its usual one"
            ) from None
        found = None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check who may read it") from error
    if path is None or found is None:
        return Settings(path)
    return _read(path, found.st_mtime_ns, found.st_size, commands())


def in_force(command: str | None = None) -> dict[str, Setting]:
    """The settings of a command, that of this process if none is named. Raises UsageError."""
    command, settings = command or _running[0], read()
    everywhere = dict(settings.everywhere)
    if command == "translate":  # translate has a default model of its own kind
        everywhere.pop("model", None)
    return {**everywhere, **settings.commands.get(command, {})}


def value(name: str) -> Any:
    """The value of a setting; None if it is not set, or if a variable of another name overrides it. Raises UsageError."""
    if name == "color" and color_variable():
        return None
    found = in_force().get(name)
    return None if found is None else found.value


def color_variable() -> str | None:
    """The variable of the environment that decides on colour."""
    return next((name for name in ("NO_COLOR", "FORCE_COLOR") if os.environ.get(name)), None)


def environment() -> dict[str, str]:
    """The environment with the settings in it, each as text under its option's own name. Raises UsageError."""
    texts = {name: str(one.value) for name, one in in_force().items() if name not in OTHERS}
    return {**{name: text for name, text in os.environ.items() if name.startswith("TGEN_")}, **texts}


def stray_variables() -> list[str]:
    """What to say of each TGEN_ variable that tgen does not read, but whose name is like an option's or like that of another variable."""
    records = [declarations(record) for record in (GenerationOptions, RunOptions, GuessOptions)]
    options = {*SETTINGS, *itertools.chain(*records)}
    read = {f"TGEN_{name.upper()}" for name in SETTINGS if name not in OF_COMMANDS} | OTHER_VARIABLES
    found = []
    for variable in sorted(name for name, text in os.environ.items() if name.startswith("TGEN_") and text and name not in read):
        name = variable.removeprefix("TGEN_").lower()
        nearest = difflib.get_close_matches(variable, sorted(read), 1, cutoff=0.85)
        if name in options:
            found.append(f"tgen reads no variable {variable}; use {flag(name)}")
        elif nearest:
            found.append(f"tgen reads no variable {variable}; do you mean {nearest[0]}?")
    return found


def named_model(model: str | None) -> str | None:
    """The model's name as the user gave it: --model, else $TGEN_MODEL, else the setting. Raises UsageError."""
    return model or os.environ.get("TGEN_MODEL") or value("model")


def unalias(name: str) -> str:
    """The folder or name that an alias of the settings stands for; any other name is itself. Raises UsageError."""
    return read().aliases.get(name, name)


def check_table(command: str, options: Iterable[str]) -> None:
    """Raise UsageError if the table of a command sets an option that is none of the command's `options`."""
    for name, setting in read().commands.get(command, {}).items():
        if name not in options:
            raise UsageError(
                f"{_place(read().path, setting.line)}: tgen {command} has no option {name}", f"`tgen {command} --help` lists them"
            )


@functools.lru_cache(maxsize=1)
def _read(path: Path, modified: int, size: int, tables_of: tuple[str, ...]) -> Settings:  # noqa: ARG001
    """The settings of a file, which is read again only after it has changed."""
    import tomllib

    try:
        text = decode_text(path.read_bytes(), str(path))
        tables = tomllib.loads(text)
    except OSError as error:
        hint = "the settings are a file, not a folder" if path.is_dir() else "check who may read it"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", 'a line is NAME = VALUE, such as temperature = 0.7 or model = "NAME"') from error
    reader = _Reader(path, text)
    aliases = reader.aliases(tables.pop(ALIASES, {}))
    own = {name: tables.pop(name) for name in tables_of if isinstance(tables.get(name), dict)}
    return Settings(
        path,
        reader.values(tables, "", (*tables_of, ALIASES)),
        {name: reader.values(table, name) for name, table in own.items()},
        aliases,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks what a file holds, and says on which line a fault is."""

    path: Path
    text: str

    def values(self, table: Mapping[str, Any], within: str, tables: tuple[str, ...] = ()) -> dict[str, Setting]:
        """The settings of a table. Raises UsageError."""
        found: dict[str, Setting] = {}
        for key, given in table.items():
            name, line = key.replace("-", "_"), self._line(within, key)
            if name not in SETTINGS:
                where = f" in [{within}]" if within else ""
                raise self._error(line, f"there is no setting {key!r}{where}", _nearest(key, (*SETTINGS, *tables)))
            if name in found:
                raise self._error(line, f"{name} is set twice", "leave one of them out")
            try:
                _check(name, SETTINGS[name], given)
            except UsageError as error:
                raise self._error(line, error.message, error.hint or HINT) from error
            found[name] = Setting(given, line)
        return found

    def aliases(self, table: object) -> dict[str, str]:
        """The names of models. Raises UsageError."""
        if not isinstance(table, dict):
            raise self._error(self._line("", ALIASES), f"{ALIASES} must be a table", f'write [{ALIASES}], and below it NAME = "FOLDER"')
        for name, target in table.items():
            if not (isinstance(target, str) and target):
                raise self._error(
                    self._line(ALIASES, name),
                    f"the alias {name!r} must be a text, not {target!r}",
                    "give a folder, or a name of `tgen models`",
                )
        return dict(table)

    def _error(self, line: int, message: str, hint: str) -> UsageError:
        return UsageError(f"{_place(self.path, line)}: {message}", hint)

    def _line(self, within: str, key: str) -> int:
        """The number of the line that sets a key, which Python's reader does not tell; 0 if it is written in an uncommon way."""
        table = ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            if header := re.match(r"\s*\[\s*[\"']?([^\[\]\"']+?)[\"']?\s*\]", line):
                table = header[1]
            if (table == within and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)) or (header and not within and table == key):
                return number
        return 0


def _check(name: str, option: Declaration, given: object) -> None:
    """Raise UsageError for a value that a setting cannot have."""
    option.check(name, given)
    if not (option.number or option.choices or option.switch) and not (isinstance(given, str) and given):
        raise UsageError(f"--{name.replace('_', '-')} must be a text, not {given!r}")


def _place(path: Path | None, line: int) -> str:
    return f"{path}, line {line}" if line else str(path)


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.replace("-", "_").casefold(), known, n=3)
    return f"nearest: {', '.join(close)}; {HINT}" if close else HINT
