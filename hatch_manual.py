"""Writes the manual pages, tgen.1 and one for each command, out of what --help says: `python hatch_manual.py FOLDER`.

The build runs this, and installs the pages where `man tgen-generate` finds them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import typer

from tgen import __version__
from tgen.cli.main import COMMANDS, make_app


def pages() -> Iterator[tuple[str, str]]:
    """The name and the source of each page."""
    group: Any = typer.main.get_command(make_app())
    context = typer.Context(group, info_name="tgen", **group.context_settings)
    listed = "".join(f".TP\n.BR tgen\\-{name} (1)\n{escaped(COMMANDS[name])}\n" for name in COMMANDS)
    yield "tgen.1", page(group, context, "generate text with transformer checkpoints") + f".SH COMMANDS\n{listed}"
    for name, command in group.commands.items():
        summary = COMMANDS[name].removesuffix(".")
        text = page(command, typer.Context(command, info_name=name, parent=context), summary[:1].lower() + summary[1:])
        yield f"tgen-{name}.1", f"{text}.SH SEE ALSO\n.BR tgen (1)\n"


def page(command: Any, context: Any, summary: str) -> str:
    """The page of a command, as far as all pages are alike."""
    name = escaped(context.command_path.replace(" ", "-"))
    synopsis = escaped(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    description = "\n.PP\n".join(escaped(" ".join(part.split())) for part in (command.help or "").split("\n\n"))
    return (
        f'.TH "{name.upper()}" 1 "" "tgen {__version__}" "tgen"\n.nh\n.ad l\n.SH NAME\n{name} \\- {escaped(summary)}\n'
        f".SH SYNOPSIS\n.B {synopsis}\n.SH DESCRIPTION\n{description}\n.SH OPTIONS\n{options(command, context)}"
    )


def options(command: Any, context: Any) -> str:
    """The arguments and options of a command under the headings of its help."""
    groups: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            heading, record = "Arguments", (str(parameter.metavar), parameter.help or "")
        else:
            heading, record = getattr(parameter, "rich_help_panel", None) or "Options", parameter.get_help_record(context)
        groups.setdefault(heading, []).append(f".TP\n.B {escaped(record[0])}\n{escaped(record[1])}\n")
    return "".join(f".SS {escaped(heading)}\n{''.join(records)}" for heading, records in groups.items())


def escaped(text: str) -> str:
    """A text for roff: minus signs as they are typed, commands in bold, and no line that looks like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)
    return re.sub(r"^(?=[.])", r"\\&", text, flags=re.MULTILINE)


if __name__ == "__main__":
    for file, text in pages():
        Path(sys.argv[1], file).write_text(text, "utf-8")
