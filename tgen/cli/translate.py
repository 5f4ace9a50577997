"""`tgen translate`: one line in, one line out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tgen.batch.lines import Line, line_batches
from tgen.cli import parameters as p
from tgen.cli.asked import asked_options
from tgen.cli.model import chosen_checkpoint, require_kind
from tgen.cli.prompt import LinesArgument
from tgen.options import RunOptions, resolve
from tgen.ui import messages
from tgen.ui.output import write_text

if TYPE_CHECKING:
    from tgen.engine.translator import Translator

# Lines that are there are read together, sorted by length, and translated so many at a time.
READ, BATCH = 128, 16


def translate(
    text: LinesArgument = None,
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

    Standard input is read before TEXT; in a `while read` loop, </dev/null keeps the loop's lines.

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

    from tgen.checkpoint.container import generation_settings
    from tgen.engine.opening import make_translator
    from tgen.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(checkpoint.folder, checkpoint.spec.vocab)
    resolved = resolve(asked, os.environ, generation_settings(checkpoint), answer=True)

    from tgen.executors.open import open_model, sessions
    from tgen.ui.counting import counting

    translator = make_translator(checkpoint, sessions(open_model(checkpoint, options)), tokenizer, resolved.options)
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
