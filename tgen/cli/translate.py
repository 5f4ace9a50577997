"""`tgen translate`: one line in, one line out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tgen.batch.lines import Line, line_batches
from tgen.cli import options as p
from tgen.cli.opening import open_checkpoint, require_kind
from tgen.options import RunOptions, resolve
from tgen.ui import messages
from tgen.ui.output import write_text

if TYPE_CHECKING:
    from tgen.engine.translator import Translator

# Up to READ waiting lines are read together, sorted by length, and translated BATCH at a time.
READ, BATCH = 128, 16


@p.takes(
    only=("num_beams", "max_new_tokens", "repetition_penalty", "no_repeat_ngram_size"),
    but={"num_beams": {"help": "Keep the likeliest few texts at each step; 1 takes the likeliest token at each step."}},
)
def translate(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A text, or one on each line; - is standard input.")] = None,
    file: p.File = None,
    *,
    asked: p.Asked,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    run: RunOptions,
) -> int:
    """Translate with an encoder-decoder (Marian, BART, T5): one line in, one line out, in order; an empty line stays empty.

    A line is answered as soon as it comes; lines that come together are translated together. A line that is longer than the model reads
    loses its end, and a warning names it. The result is the likeliest text that a search with the folder's beams finds.
    """
    batches = line_batches(text, file, READ)
    checkpoint = open_checkpoint(model, translator=True)
    require_kind(checkpoint, "translate", "encoder-decoder")

    from tgen.checkpoint.generation import read_generation
    from tgen.engine.opening import make_translator
    from tgen.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    resolved = resolve(asked.values, asked.environment, read_generation(checkpoint).options)

    from tgen.executors.open import open_model, sessions
    from tgen.ui.counting import counting

    translator = make_translator(checkpoint, sessions(open_model(checkpoint, run)), tokenizer, resolved.options)
    with counting("lines", None, writing=True) as bar:
        for lines in batches:
            write_text("".join(f"{target}\n" for target in _targets(translator, lines)))
            bar.add(len(lines))
    return 0


def _targets(translator: Translator, lines: list[Line]) -> list[str]:
    """The translations of lines, in their order; lines of like length share a batch, so that little is padding."""
    order = sorted(range(len(lines)), key=lambda i: len(lines[i].text))
    targets = [""] * len(lines)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for i, found in zip(chosen, translator.translate([lines[i].text for i in chosen]), strict=True):
            targets[i] = found.text.replace("\n", " ")
            if found.left_out:
                said = f"line {lines[i].number} has {found.left_out} tokens more than the model reads; its end is left out"
                messages.warning(said)
    return targets
