"""`tgen fill`: finds tokens that may take the place of a mask."""

from __future__ import annotations

from typing import Annotated

from tgen.cli import options as p
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.cli.reading import open_to_read
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui.output import write_json, write_text


@p.takes()
def fill(
    text: TextArgument = None,
    file: p.File = None,
    top: Annotated[
        int, p.option("--top", panel=p.OUTPUT, metavar="INT", limits="1 or more", default=5, help="How many candidates for each mask.")
    ] = 5,
    json: p.Json = False,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:
    """Fill masks with an encoder-only model (BERT, RoBERTa): for each mask the likeliest tokens, one a line.

    A line is the probability, a tab, the token; an empty line separates the masks of a text. [MASK] and <mask> both stand for the
    model's own mask token. Several masks are filled independently of one another.
    """
    p.check_least("--top", top, 1)
    source = PromptSource(text, file)
    opened = open_to_read(model, run, "fill", "encoder-only")
    name = opened.checkpoint.name
    if opened.checkpoint.spec.head is None:
        raise UsageError(f"{name} has no head that could fill a mask", "this model only makes vectors: use tgen embed")

    from tgen.tasks.filling import fillings, prepare_masks

    ids, places = prepare_masks(opened.tokenizer, source.read())
    opened.check_length("text", len(ids))
    found = [fillings(opened.tokenizer, row, top) for row in opened.load().masked_logits([ids], [places])]
    if json:
        listed = [[{"token": c.text, "id": c.id, "probability": c.probability} for c in mask] for mask in found]
        write_json({"model": name, "masks": listed})
    else:
        write_text("\n".join("".join(f"{c.probability:.4f}\t{c.text}\n" for c in mask) for mask in found))
    return 0
