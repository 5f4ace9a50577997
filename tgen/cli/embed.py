"""`tgen embed`: makes a vector for each line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, get_args

from tgen.batch.lines import Line, line_batches
from tgen.cli import options as p
from tgen.cli.opening import require_kind
from tgen.cli.prompt import LinesArgument
from tgen.cli.reading import open_to_read
from tgen.cli.remote import Remote, chosen
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
    server: p.Server = None,
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
    remote = chosen(server, model, ("encoder-only",), run)
    if remote is not None:
        require_kind(remote.describe(), "embed", "encoder-only")
        for lines in batches:
            _write(lines, *_remote_vectors(remote, lines, pooling, normalize))
        return 0
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
        read = hidden_states(loaded, [fitting(ids, longest) for ids in rows], width)
        vectors = ([round(float(x), 7) for x in pool(states, settings.pooling, normalize)] for states in read)
        _write(lines, list(map(len, rows)), longest, vectors)
    return 0


def _remote_vectors(
    remote: Remote, lines: Sequence[Line], pooling: Pooling | None, normalize: bool | None
) -> tuple[list[int], int, list[list[float]]]:
    """What a server makes of lines: their lengths, the longest that it reads, the vectors. Raises TgenError."""
    asked = {"lines": [line.text for line in lines], "pooling": pooling, "normalize": normalize}
    [found] = remote.records("embed", asked)
    return found["counts"], found["longest"], found["vectors"]


def _write(lines: Sequence[Line], counts: Sequence[int], longest: int, vectors: Iterable[list[float]]) -> None:
    """Write the vectors of lines, after warnings of lines that are too long."""
    for line, count in zip(lines, counts, strict=True):
        if count > longest:
            messages.warning(f"line {line.number} has {count} tokens, the model reads {longest}; its end is left out")
    for line, vector in zip(lines, vectors, strict=True):
        write_json({"index": line.number - 1, "text": line.text, "embedding": vector})
