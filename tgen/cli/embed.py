"""`tgen embed`: makes a vector for each line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from tgen.batch.lines import line_batches
from tgen.cli import options as p
from tgen.cli.prompt import LinesArgument
from tgen.cli.reading import open_to_read
from tgen.errors import CheckpointError
from tgen.options import Pooling, RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json

if TYPE_CHECKING:
    from tgen.tasks.embedding import Steps
    from tgen.text.tokenizer import Tokenizer

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
            help="The mean over all tokens, weighted by their places or divided by the root of their number; the largest number of each "
            "component; the first or the last token.",
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
    """Turn each line into a vector: one JSON object a line, with index, text and embedding, in the order of the input.

    The model is an encoder, or a decoder, whose tokens see only what stands before them. The command keeps the settings of a
    sentence-transformers folder: prompts, pooling, matrices, length 1, lower case, most tokens read. A line that is too long loses its
    end, and a warning names it. A line without any token has a vector of zeros. Standard input is read before TEXT: in a `while read`
    loop, add </dev/null, or the command takes the loop's lines.
    """
    messages.configure("auto", quiet)
    batches = line_batches(text, file, BATCH)
    opened = open_to_read(model, run, "embed", "encoder-only", "decoder-only", vectors=True)

    from tgen.tasks.embedding import hidden_states
    from tgen.tasks.sentence_folder import folder_settings
    from tgen.text.fitting import fitting

    settings = folder_settings(opened.checkpoint.folder, pooling)
    steps, prompt = settings.steps.with_length(normalize), settings.prompt(prompt_name)
    prompt = prompt.lower() if settings.lower else prompt
    context, width = opened.checkpoint.spec.context, opened.checkpoint.spec.width
    longest = min(context, settings.longest or context)
    _check_sizes(steps, width)
    skipped = _prompt_tokens(opened.tokenizer, prompt)
    loaded = opened.load()
    for lines in batches:
        contents = [prompt + (line.text.lower() if settings.lower else line.text) for line in lines]
        rows = [opened.tokenizer.encode(content) for content in contents]
        for line, ids in zip(lines, rows, strict=True):
            if len(ids) > longest:
                messages.warning(f"line {line.number} has {len(ids)} tokens, the model reads {longest}; its end is left out")
        read = hidden_states(loaded, [fitting(ids, longest) for ids in rows], width)
        for line, states in zip(lines, read, strict=True):
            vector = steps.vector(states, skipped)
            write_json({"index": line.number - 1, "text": line.text, "embedding": [round(float(x), 7) for x in vector]})
    return 0


def _prompt_tokens(tokenizer: Tokenizer, prompt: str) -> int:
    """How many of a text's first tokens are the prompt's: those that the tokenizer itself adds at the end are not."""
    if not prompt:
        return 0
    ids = tokenizer.encode(prompt)
    return len(ids) - (ids[-1] in map(tokenizer.special_id, tokenizer.added()))


def _check_sizes(steps: Steps, width: int) -> None:
    """Raise CheckpointError if a matrix does not fit the vectors that it gets."""
    from tgen.tasks.embedding import Dense

    size = width * len(steps.poolings)
    for step in steps.then:
        if isinstance(step, Dense):
            if step.weight.shape[1] != size:
                message = f"a Dense module takes vectors of {step.weight.shape[1]} numbers and gets {size}"
                raise CheckpointError(message, "the folder's modules belong to different models; download it again")
            size = step.weight.shape[0]
