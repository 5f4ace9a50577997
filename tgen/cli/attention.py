"""`tgen attention`: shows where each token looks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from tgen import files
from tgen.cli import options as p
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.cli.reading import Opened, open_to_read
from tgen.errors import UsageError
from tgen.options import AttentionKind as Kind
from tgen.options import RunOptions
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.executors.torch.transformer import Transformer
    from tgen.tasks.attending import Attending
    from tgen.ui.heatmap import HeatMap

MAP = "Which map"


@p.takes(without=("executor", "quantize"))
def attention(
    text: TextArgument = None,
    file: p.File = None,
    answer: Annotated[
        str | None,
        p.option("--answer", panel=p.PROMPT, metavar="TEXT", default="the model's own answer", help="An encoder-decoder's answer to TEXT."),
    ] = None,
    kind: Annotated[
        Kind | None,
        p.option(
            "--kind", panel=MAP, metavar="|".join(get_args(Kind)), default="cross, else the only kind there is",
            help="Self-attention of the encoder, masked self-attention of the decoder, or cross-attention from the decoder to the encoder.",
        ),
    ] = None,
    layer: Annotated[
        int, p.option("--layer", panel=MAP, metavar="INT", default=-1, help="The layer, counted from 0; -1 is the last.")
    ] = -1,
    head: Annotated[
        int | None,
        p.option("--head", panel=MAP, metavar="INT", default="the mean of all", help="The head, counted from 0; -1 is the last."),
    ] = None,
    all_heads: Annotated[bool, p.option("--all-heads", panel=MAP, help="Every head of the layer, each as a small map.")] = False,
    svg: Annotated[Path | None, p.option("--svg", panel=p.OUTPUT, metavar="FILE", help="Write a picture to a file instead.")] = None,
    json: p.Json = False,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:  # fmt: skip
    """Show attention as a heat map: rows are the tokens that look, columns the tokens they look at; each row sums to 1.

    With --json, a list of maps: title, queries, keys, and weights row by row.
    """
    if all_heads and head is not None:
        raise UsageError("--head and --all-heads exclude each other", "give one of them")
    if svg is not None and json:
        raise UsageError("--svg and --json exclude each other", "give one of them")
    if svg is not None:
        _check_writable(svg)
    from tgen.executors.open import require_torch

    require_torch("tgen attention")
    source = PromptSource(text, file)
    opened = open_to_read(model, run, "attention")

    from tgen.tasks.attending import check_length, checked_kind

    shown = checked_kind(opened.checkpoint, kind, answered=answer is not None)
    ids = opened.tokenizer.encode(source.read())
    check_length(opened.checkpoint, "text", len(ids))
    maps = _record(opened, ids, answer)
    heats = maps.every_head(shown, layer) if all_heads else [maps.selected(shown, layer, head)]
    _show(heats, all_heads, svg, json)
    return 0


def _check_writable(svg: Path) -> None:
    """Raise UsageError, before a model is loaded, if the picture could not be written."""
    try:
        files.try_writing(svg)
    except OSError as error:
        raise UsageError(f"cannot write {svg}: {error.strerror or error}", "name a file in a folder you may write to") from error


def _record(opened: Opened, ids: list[int], answer: str | None) -> Attending:
    """The maps; an encoder-decoder reads `answer` or, without one, writes its own."""
    from tgen.executors.open import open_model
    from tgen.tasks.attending import attend

    checkpoint, tokenizer = opened.checkpoint, opened.tokenizer
    model = open_model(checkpoint, opened.options)
    if checkpoint.spec.kind != "encoder-decoder":
        return attend(checkpoint, tokenizer, model, ids, [])
    written = _answer(opened, model, ids) if answer is None else tokenizer.encode(answer, special=False)
    return attend(checkpoint, tokenizer, model, ids, written)


def _answer(opened: Opened, model: Transformer, source: list[int]) -> list[int]:
    """The ids of the model's likeliest answer to a source: the same with every call, even where the folder's settings draw tokens."""
    from tgen.engine.opening import make_generator
    from tgen.events import Finished
    from tgen.executors.torch.session import TorchExecutor

    generator = make_generator(opened.checkpoint, TorchExecutor(model), opened.tokenizer)
    events = generator.run(source, generator.resolve({"temperature": 0.0}))
    return next(list(event.ids) for event in events if isinstance(event, Finished))


def _show(heats: list[HeatMap], small: bool, svg: Path | None, json: bool) -> None:
    from tgen.ui.heatmap import draw_map, draw_small
    from tgen.ui.heatmap_svg import svg as draw_svg

    if json:
        from tgen.wire.inspection import map_record

        write_json(list(map(map_record, heats)))
    elif svg is not None:
        files.write_text(svg, draw_svg(heats))
    else:
        width = shutil.get_terminal_size().columns
        write_text("\n".join(draw_small(heats, width) if small else draw_map(heats[0], width)).rstrip("\n") + "\n")
