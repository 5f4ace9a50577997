"""`tgen translate`: translates line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from tgen.batch.lines import Line, line_batches
from tgen.cli import options as p
from tgen.cli.opening import open_checkpoint, open_generator, require_kind
from tgen.cli.prompt import LinesArgument
from tgen.cli.remote import chosen
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_text

if TYPE_CHECKING:
    from tgen.checkpoint.container import Checkpoint
    from tgen.cli.remote_client import Remote

# Maps texts to their translations, each with the number of tokens of the text that the model could not read.
Translate = Callable[[list[str]], list[tuple[str, int]]]

# Up to this many waiting lines are read and translated together.
READ = 128


@p.takes(
    only=("num_beams", "max_new_tokens", "repetition_penalty", "no_repeat_ngram_size"),
    but={"num_beams": {"help": "Keep the likeliest few texts at each step; 1 takes the likeliest token at each step."}},
)
def translate(
    text: LinesArgument = None,
    file: p.File = None,
    source: Annotated[
        str | None,
        p.option(
            "--from", panel=p.PROMPT, metavar="CODE", default="the folder's",
            help="The language of the text, for a model of many languages: eng_Latn, en_XX, en, or a beginning that only one code has.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        p.option("--to", panel=p.PROMPT, metavar="CODE", default="the folder's", help="The language to translate into, for such a model."),
    ] = None,
    *,
    asked: p.Asked,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    server: p.Server = None,
    run: RunOptions,
) -> int:  # fmt: skip
    """Translate with an encoder-decoder (Marian, NLLB, M2M-100, mBART, T5): one line in, one line out, in order; an empty line stays empty.

    Standard input is read before TEXT: in a `while read` loop, add </dev/null, or the command takes the loop's lines.

    A line is answered as soon as it comes; lines that come together are translated together. A line that is longer than the model reads
    loses its end, and a warning names it. Each translation is the likeliest text that beam search finds (--num-beams).
    """
    batches = line_batches(text, file, READ)
    remote = chosen(server, model, ("encoder-decoder",), run)
    checkpoint = open_checkpoint(model, translator=True, adapters=run.adapter) if remote is None else remote.describe()
    require_kind(checkpoint, "translate", "encoder-decoder")

    from tgen.ui.counting import counting

    if remote is None:
        translate = _local(checkpoint, model, run, asked, source, target)
    else:
        translate = partial(_remote, remote, {"values": asked.values, "environment": asked.environment, "from": source, "to": target})
    with counting("lines", None, writing=True) as bar:
        for lines in batches:
            write_text("".join(f"{target}\n" for target in _targets(translate, lines)))
            bar.add(len(lines))
    return 0


def _local(checkpoint: Checkpoint, model: str | None, run: RunOptions, asked: p.Asked, source: str | None, target: str | None) -> Translate:
    from tgen.tasks.translation import Translator

    generator, _ = open_generator(model, run, checkpoint)
    translator = Translator(generator, generator.resolve(asked.values, asked.environment), source=source, target=target)
    return lambda texts: [(found.text, found.left_out) for found in translator.translate(texts)]


def _remote(remote: Remote, settings: dict[str, Any], texts: list[str]) -> list[tuple[str, int]]:
    return [(record["text"], record["left_out"]) for record in remote.records("translate", {"lines": texts, **settings})]


def _targets(translate: Translate, lines: list[Line]) -> Iterator[str]:
    """The translations of lines, in their order."""
    for line, (text, left_out) in zip(lines, translate([line.text for line in lines]), strict=True):
        if left_out:
            messages.warning(f"line {line.number} has {left_out} tokens more than the model reads; its end is left out")
        yield text.replace("\n", " ")
