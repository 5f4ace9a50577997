"""`tgen embed`: makes a vector for each line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_args

from tgen.batch.lines import Line, line_batches
from tgen.cli import options as p
from tgen.cli.opening import require_kind
from tgen.cli.prompt import LinesArgument
from tgen.cli.reading import open_to_read
from tgen.cli.remote import chosen
from tgen.options import Pooling, RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json

KINDS = ("encoder-only", "decoder-only")
BATCH = 32


@p.takes()
def embed(
    text: LinesArgument = None,
    file: p.File = None,
    prompt_name: Annotated[
        str | None,
        p.option(
            "--prompt-name", panel=p.PROMPT, metavar="NAME", default="the folder's, if it names one",
            help="Put this prompt of the folder before each line: some models have one for queries, another for documents.",
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None,
        p.option(
            "--pooling", panel=p.OUTPUT, metavar="|".join(get_args(Pooling)), default="the folder's, else mean",
            help="How a text's vectors become one. mean: their mean; weighted: later tokens count more; sqrt: their sum divided by "
            "the root of their number; max: the largest number of each component; first, last: the vector of that token.",
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        p.option("--normalize/--no-normalize", panel=p.OUTPUT, default="the folder's, else no", help="Scale every vector to length 1."),
    ] = None,
    quiet: p.Quiet = False,
    model: p.Model = None,
    server: p.Server = None,
    *,
    run: RunOptions,
) -> int:  # fmt: skip
    """Turn each line into a vector: one JSON object a line, with index, text and embedding, in the order of the input.

    The model is an encoder, or a decoder, whose tokens see only what stands before them. The command keeps the settings of a
    sentence-transformers folder: prompts, pooling, dense layers after it, normalization, lower case, and the longest text. A line that
    is too long loses its end, and a warning names it. A line without any token has a vector of zeros. Standard input is read before
    TEXT: in a `while read` loop, add </dev/null, or the command takes the loop's lines.
    """
    messages.configure("auto", quiet)
    batches = line_batches(text, file, BATCH)
    settings: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "prompt_name": prompt_name}
    remote = chosen(server, model, KINDS, run)
    if remote is not None:
        require_kind(remote.describe(), "embed", *KINDS)
        for lines in batches:
            [found] = remote.records("embed", {"lines": [line.text for line in lines], **settings})
            _write(lines, found["counts"], found["longest"], found["vectors"])
        return 0
    opened = open_to_read(model, run, "embed", *KINDS, vectors=True)

    from tgen.tasks.vectors import embedder

    maker = embedder(opened.checkpoint, opened.tokenizer, **settings)
    loaded = opened.load()
    for lines in batches:
        rows = [maker.ids(line.text) for line in lines]
        vectors = ([round(float(x), 7) for x in vector] for vector in maker.vectors(loaded, rows))
        _write(lines, list(map(len, rows)), maker.longest, vectors)
    return 0


def _write(lines: Sequence[Line], counts: Sequence[int], longest: int, vectors: Iterable[list[float]]) -> None:
    """Write the vectors of lines, after warnings of lines that are too long."""
    for line, count in zip(lines, counts, strict=True):
        if count > longest:
            messages.warning(f"line {line.number} has {count} tokens, the model reads {longest}; its end is left out")
    for line, vector in zip(lines, vectors, strict=True):
        write_json({"index": line.number - 1, "text": line.text, "embedding": vector})
