"""`tgen pull`: fetches a model from the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from tgen.cli import options as p
from tgen.ui import messages
from tgen.ui.output import write_text


def pull(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="ORG/NAME or ORG/NAME@REVISION, a branch, tag or commit.", show_default=False)
    ],
    include: Annotated[
        list[str] | None,
        p.option(
            "--include", panel="Pulling", metavar="GLOB",
            help="Fetch the files that fit this pattern too, such as '*.gguf'; may be given several times.",
        ),
    ] = None,
    quiet: p.Quiet = False,
) -> int:  # fmt: skip
    """Fetch a model or an adapter from the Hugging Face hub into the Hugging Face cache, where --model finds it by its name.

    Only the files that a run needs are fetched: config, tokenizer, and the weights in one form, safetensors if there are any. A pull that
    was interrupted goes on where it stopped, and each file is compared with the hub's digest of it. The folder is written to standard
    output. HF_TOKEN opens what is gated or private, HF_ENDPOINT names another hub, HF_HUB_CACHE another cache.

    No other command touches the network.
    """
    messages.configure("auto", quiet)

    from tgen.checkpoint.hub.pull import pull
    from tgen.files import read_optional_json

    pulled = pull(name, include or [])
    messages.dim(f"{pulled.files} files, {pulled.size / 1e6:,.1f} MB, of which {pulled.fetched / 1e6:,.1f} MB came over the network")
    if base := read_optional_json(pulled.folder / "adapter_config.json").get("base_model_name_or_path"):
        messages.note(f"{name} is an adapter for {base}; `tgen pull {base}` fetches that")
    write_text(f"{pulled.folder}\n")
    return 0
