"""`tgen embed`: makes a vector for each line."""

from __future__ import annotations

from typing import Annotated, get_args

from tgen.batch.lines import line_batches
from tgen.cli import options as p
from tgen.cli.prompt import LinesArgument
from tgen.cli.reading import open_to_read
from tgen.options import Pooling, RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json

BATCH = 32


@p.takes()
def embed(
    text: LinesArgument = None,
    file: p.File = None,
    pooling: Annotated[
        Pooling | None,
        p.option(
            "--pooling", panel=p.OUTPUT, metavar="|".join(get_args(Pooling)), default="the folder's, else mean",
            help="The mean over all tokens, or the first token.",
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        p.option("--normalize/--no-normalize", panel=p.OUTPUT, default="the folder's, else no", help="Make every vector of length 1."),
    ] = None,
    quiet: p.Quiet = False,
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:  # fmt: skip
    """Turn each line into a vector with an encoder: one JSON object a line, with index, text and embedding, in the order of the input.

    The command keeps the settings of a sentence-transformers folder: pooling, length 1, lower case, most tokens read. A line that is too
    long loses its end, and a warning names it. A line without any token has a vector of zeros. Standard input is read before TEXT: in a
    `while read` loop, add </dev/null, or the command takes the loop's lines.
    """
    messages.configure("auto", quiet)
    batches = line_batches(text, file, BATCH)
    opened = open_to_read(model, run, "embed", "encoder-only")

    from tgen.tasks.embedding import folder_settings, hidden_states, pool
    from tgen.text.fitting import fitting

    settings = folder_settings(opened.checkpoint.folder, pooling)
    normalize = settings.normalize if normalize is None else normalize
    context = opened.checkpoint.spec.context
    longest = min(context, settings.longest or context)
    loaded, width = opened.load(), opened.checkpoint.spec.width
    for lines in batches:
        rows = [opened.tokenizer.encode(line.text.lower() if settings.lower else line.text) for line in lines]
        for line, ids in zip(lines, rows, strict=True):
            if len(ids) > longest:
                messages.warning(f"line {line.number} has {len(ids)} tokens, the model reads {longest}; its end is left out")
        read = hidden_states(loaded, [fitting(ids, longest) for ids in rows], width)
        for line, states in zip(lines, read, strict=True):
            vector = pool(states, settings.pooling, normalize)
            write_json({"index": line.number - 1, "text": line.text, "embedding": [round(float(x), 7) for x in vector]})
    return 0
