"""`tgen models`: lists the models on this machine, and removes one that was pulled."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli.completion import cached_names
from tgen.errors import CheckpointError, UsageError
from tgen.ui import messages
from tgen.ui.output import write_json, write_text


def models(
    json: p.Json = False,
    remove: Annotated[
        str | None,
        p.option(
            "--remove",
            panel="Removing",
            metavar="NAME",
            help="Remove a model from the Hugging Face cache, with all its revisions.",
            completes=cached_names,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", rich_help_panel="Removing", help="Remove it without asking.")] = False,
) -> int:
    """List the shipped models and those in the Hugging Face cache, by the names that --model takes; tgen pull adds some.

    The command itself touches no network. --remove NAME deletes a model that was pulled; shipped models stay.
    """
    messages.configure("auto", quiet=False)
    if yes and remove is None:
        raise UsageError("--yes is for --remove", "leave --yes out")
    return _list(json) if remove is None else _remove(remove, yes)


def _list(json: bool) -> int:
    from tgen.checkpoint.resolve import DEFAULT_MODEL, found_models

    rows = [
        {"name": found.name, "origin": found.origin, **_summary(str(found.folder)), "folder": str(found.folder)} for found in found_models()
    ]
    if json:
        write_json(rows)
        return 0
    if not rows:
        messages.note("no models: neither shipped nor in the Hugging Face cache; --model takes any Hugging Face folder")
        return 0
    for row in rows:
        row["name"] += " (default)" if row["origin"] == "shipped" and row["name"] == DEFAULT_MODEL else ""
    widths = {key: max(len(str(row[key])) for row in rows) for key in ("name", "origin", "size")}
    write_text("".join("  ".join([*(f"{row[key]!s:{width}}" for key, width in widths.items()), row["status"]]) + "\n" for row in rows))
    return 0


def _remove(name: str, is_sure: bool) -> int:
    """Remove a repository from the cache, after a question. Raises UsageError for what is not there, or must stay."""
    from tgen.checkpoint.hub.cache import repositories
    from tgen.checkpoint.resolve import found_models
    from tgen.ui.terminal import is_terminal

    found = next((one for one in repositories() if one.name == name), None)
    if found is None and any(one.name == name for one in found_models()):
        raise UsageError(f"{name} is shipped with tgen, and stays", "--remove is for the models of the Hugging Face cache")
    if found is None:
        raise UsageError(f"the Hugging Face cache has no model {name!r}", "`tgen models` lists them")
    if not is_sure:
        if not is_terminal(sys.stdin):
            raise UsageError("--remove asks first, and standard input is not a terminal", "add --yes")
        answer = typer.prompt(f"remove {found.folder}? [y/N]", default="", show_default=False, prompt_suffix=" ", err=True)
        if answer.strip().casefold() not in ("y", "yes"):
            messages.note("nothing was removed")
            return 0
    messages.dim(f"removed {name}: {found.remove() / 1e6:,.1f} MB")
    return 0


def _summary(folder: str) -> dict[str, Any]:
    """Size, and whether it runs."""
    from tgen.checkpoint.container import open_checkpoint
    from tgen.checkpoint.resolve import resolve
    from tgen.spec.shapes import parameter_count

    try:
        checkpoint = open_checkpoint(resolve(folder))
    except CheckpointError as error:
        return {"size": "-", "parameters": None, "runs": False, "status": error.message}
    count = parameter_count(checkpoint.spec)
    return {
        "size": f"{count / 1e6:.1f} M",
        "parameters": count,
        "runs": True,
        "status": checkpoint.model_type + ", with an adapter" * bool(checkpoint.adapters),
    }
