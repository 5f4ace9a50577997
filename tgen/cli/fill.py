"""`tgen fill`: what may stand in place of a mask."""

from __future__ import annotations

from typing import Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.model import chosen_checkpoint, require_kind
from tgen.cli.prompt import PromptSource
from tgen.errors import CapacityError, UsageError
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text


def fill(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A text with [MASK] or <mask> in it; - is standard input.")] = None,
    file: p.File = None,
    top: Annotated[
        int, p.option("--top", panel=p.OUTPUT, metavar="INT", limits="1 or more", default=5, help="How many candidates for each mask.")
    ] = 5,
    json: p.Json = False,
    model: p.Model = None,
    device: p.DeviceOption = None,
    dtype: p.DtypeOption = None,
    threads: p.Threads = None,
) -> int:
    """Fill masks with an encoder-only model (BERT, RoBERTa): for each mask the likeliest tokens, one a line.

    A line is the probability, a tab, the token; between the masks of a text is an empty line. [MASK] and <mask> both stand for the
    model's own mask token. Several masks are filled each by itself.
    """
    messages.configure("auto", quiet=False)
    p.check_least("--top", top, 1)
    options = RunOptions(device or "auto", dtype or "auto", threads)
    source = PromptSource(text, file)
    checkpoint = chosen_checkpoint(model)
    require_kind(checkpoint, "fill", "encoder-only")
    if checkpoint.spec.head is None:
        raise UsageError(f"{checkpoint.name} has no head that could fill a mask", "it gives vectors only: tgen embed")

    from tgen.tasks.filling import fillings, prepare_masks
    from tgen.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    ids, places = prepare_masks(tokenizer, source.read())
    if len(ids) > checkpoint.spec.context:
        raise CapacityError(f"the text has {len(ids)} tokens, the model's context is {checkpoint.spec.context}", "shorten it")

    from tgen.executors.open import open_model
    from tgen.executors.torch.reading import Reader

    logits = Reader(open_model(checkpoint, options)).logits_at(ids, places)
    found = [fillings(tokenizer, row, top) for row in logits]
    if json:
        listed = [[{"token": c.text, "id": c.id, "probability": c.probability} for c in mask] for mask in found]
        write_json({"model": checkpoint.name, "masks": listed})
    else:
        write_text("\n".join("".join(f"{c.probability:.4f}\t{c.text}\n" for c in mask) for mask in found))
    return 0
