"""`tgen translate`: one line in, one line out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tgen.batch.lines import Line, line_batches
from tgen.cli import options as p
from tgen.cli.asked import asked_options
from tgen.cli.opening import chosen_checkpoint, open_generator, require_kind
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_text

if TYPE_CHECKING:
    from tgen.tasks.translation import Translator

# So many lines that are there are read and translated together.
READ = 128


def translate(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A text, or one on each line; - is standard input.")] = None,
    file: p.File = None,
    num_beams: p.NumBeams = None,
    max_new_tokens: p.MaxNewTokens = None,
    repetition_penalty: p.RepetitionPenalty = None,
    no_repeat_ngram_size: p.NoRepeatNgramSize = None,
    quiet: p.Quiet = False,
    model: p.Model = None,
    device: p.DeviceOption = None,
    dtype: p.DtypeOption = None,
    threads: p.Threads = None,
) -> int:
    """Translate with an encoder-decoder (Marian, BART, T5): one line in, one line out, in order; an empty line stays empty.

    A line is answered as soon as it comes; lines that come together are translated together. A line that is longer than the model reads
    loses its end, and a warning names it. Nothing is left to chance: the likeliest text is written, found with the folder's beams.
    """
    values = locals()
    messages.configure("auto", quiet)
    asked = asked_options(values)
    options = RunOptions(device or "auto", dtype or "auto", threads)
    batches = line_batches(text, file, READ)
    checkpoint = chosen_checkpoint(model, translator=True)
    require_kind(checkpoint, "translate", "encoder-decoder")

    from tgen.tasks.translation import Translator
    from tgen.ui.counting import counting

    generator, _ = open_generator(model, options, checkpoint)
    translator = Translator(generator, generator.resolve(asked, os.environ))
    with counting("lines", None, writing=True) as bar:
        for lines in batches:
            write_text("".join(f"{target}\n" for target in _targets(translator, lines)))
            bar.add(len(lines))
    return 0


def _targets(translator: Translator, lines: list[Line]) -> Iterator[str]:
    """The translations of lines, in their order."""
    for line, found in zip(lines, translator.translate([line.text for line in lines]), strict=True):
        if found.left_out:
            messages.warning(f"line {line.number} has {found.left_out} tokens more than the model reads; its end is left out")
        yield found.text.replace("\n", " ")
