"""`tgen models`: lists the models on this machine."""

from __future__ import annotations

from typing import Any

from tgen.cli import options as p
from tgen.errors import CheckpointError
from tgen.ui import messages
from tgen.ui.output import write_json, write_text


def models(json: p.Json = False) -> int:
    """List the shipped models and those in the Hugging Face cache, by the names that --model takes. The command downloads nothing."""
    from tgen.checkpoint.resolve import DEFAULT_MODEL, found_models

    messages.configure("auto", quiet=False)
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
    return {"size": f"{count / 1e6:.1f} M", "parameters": count, "runs": True, "status": checkpoint.model_type}
