"""Whether a command computes itself or asks a running `tgen serve`, which --server, TGEN_SERVER or the settings name."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING

from tgen.cli import settings
from tgen.cli.options import as_it_stands
from tgen.declaration import flag
from tgen.errors import UsageError
from tgen.options import GuessOptions, RunOptions

if TYPE_CHECKING:
    from tgen.cli.remote_client import Remote

AUTO, NONE = "auto", "none"


def chosen(
    server: str | None, model: str | None, kinds: tuple[str, ...], run: RunOptions, guessing: GuessOptions | None = None
) -> Remote | None:
    """The server that --server, $TGEN_SERVER or the setting names; None if none does.

    Raises UsageError for options that the server has already settled, CheckpointError for a model that is not there.
    """
    address = server or os.environ.get("TGEN_SERVER") or settings.value("server")
    if not address or address == NONE:
        return None
    if address == AUTO:
        from tgen.cli.detached import found

        running = found()
        if running is None:
            raise UsageError("no detached server runs", "`tgen serve --detach` starts one; without --server, the command computes itself")
        address = running.address
    for asked, standing in zip((run, guessing), as_it_stands(), strict=True):
        for option in fields(asked) if asked is not None else ():
            if getattr(asked, option.name) != getattr(standing, option.name):
                hint = "give it to `tgen serve`; without --server and TGEN_SERVER, the command computes itself"
                raise UsageError(f"{flag(option.name)} and --server exclude each other", hint)
    from tgen.cli.remote_client import Remote  # http.client takes time to import

    named = settings.named_model(model)
    if named is None:
        return Remote(address, None, kinds)
    from tgen.checkpoint.resolve import resolve

    return Remote(address, str(resolve(settings.unalias(named)).resolve()), kinds)
