"""`tgen attention`: shows where each token looks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from tgen import files
from tgen.cli import options as p
from tgen.cli.prompt import PromptSource, TextArgument
from tgen.cli.reading import Opened, open_to_read
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

if TYPE_CHECKING:
    from tgen.executors.torch.maps import Maps
    from tgen.executors.torch.transformer import Transformer
    from tgen.ui.heatmap import HeatMap

MAP = "Which map"
Kind = Literal["encoder", "decoder", "cross"]
KINDS: dict[str, tuple[Kind, ...]] = {
    "decoder-only": ("decoder",),
    "encoder-only": ("encoder",),
    "encoder-decoder": ("cross", "encoder", "decoder"),
}


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
        int, p.option("--layer", panel=MAP, metavar="INT", default=-1, help="Counted from 0, negative ones from the last.")
    ] = -1,
    head: Annotated[
        int | None,
        p.option("--head", panel=MAP, metavar="INT", default="the mean of all", help="Counted from 0, negative ones from the last."),
    ] = None,
    all_heads: Annotated[bool, p.option("--all-heads", panel=MAP, help="Every head of the layer, each as a small map.")] = False,
    svg: Annotated[Path | None, p.option("--svg", panel=p.OUTPUT, metavar="FILE", help="Write a picture to a file instead.")] = None,
    json: p.Json = False,
    model: p.Model = None,
    *,
    run: RunOptions,
) -> int:  # fmt: skip
    """Show attention as a heat map: rows are the tokens that look, columns the tokens they look at; each row sums to 1.

    With --json, a list of maps: title, queries, keys, and weights row by row.
    """
    messages.configure("auto", quiet=False)
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
    checkpoint = opened.checkpoint
    kinds = KINDS[checkpoint.spec.kind]
    kind = kind or kinds[0]
    if kind not in kinds:
        raise UsageError(f"--kind {kind}: {checkpoint.name} is {checkpoint.spec.kind}", f"use --kind {' or '.join(kinds)}")
    if answer is not None and checkpoint.spec.kind != "encoder-decoder":
        raise UsageError(f"--answer is for encoder-decoders; {checkpoint.name} is {checkpoint.spec.kind}", "leave it out")
    ids = opened.tokenizer.encode(source.read())
    if not ids:
        raise UsageError("the text is empty", "give some text to look at")
    opened.check_length("text", len(ids))
    maps, written = _record(opened, ids, answer)
    labels = {
        name: [opened.tokenizer.decode([token], special=True) for token in tokens]
        for name, tokens in (("source", ids), ("written", written))
    }
    queries = labels["source" if kind == "encoder" or not written else "written"]
    keys = labels["written" if kind == "decoder" and written else "source"]
    _show(_selected(maps, kind, layer, head, all_heads, queries, keys), all_heads, svg, json)
    return 0


def _check_writable(svg: Path) -> None:
    """Raise UsageError, before a model is loaded, if the picture could not be written."""
    try:
        files.try_writing(svg)
    except OSError as error:
        raise UsageError(f"cannot write {svg}: {error.strerror or error}", "name a file in a folder you may write to") from error


def _record(opened: Opened, ids: list[int], answer: str | None) -> tuple[Maps, list[int]]:
    """The maps; for an encoder-decoder also the ids that its decoder read: the start token, then `answer` or the model's own answer."""
    from tgen.executors.open import open_model
    from tgen.executors.torch.maps import attention_maps

    checkpoint, tokenizer = opened.checkpoint, opened.tokenizer
    model = open_model(checkpoint, opened.options)
    if checkpoint.spec.kind != "encoder-decoder":
        return attention_maps(model, ids), []
    from tgen.checkpoint.generation import read_generation

    written = _answer(opened, model, ids) if answer is None else tokenizer.encode(answer, special=False)
    written = [read_generation(checkpoint).decoder_start or 0, *written]
    opened.check_length("answer", len(written))
    return attention_maps(model, written, source=ids), written


def _answer(opened: Opened, model: Transformer, source: list[int]) -> list[int]:
    """The ids of the likeliest answer to a source, as the folder's settings find it."""
    from tgen.engine.opening import make_generator
    from tgen.events import Finished
    from tgen.executors.torch.session import TorchExecutor

    generator = make_generator(opened.checkpoint, TorchExecutor(model), opened.tokenizer)
    events = generator.run(source, generator.resolve({}))
    return next(list(event.ids) for event in events if isinstance(event, Finished))


def _selected(
    maps: Maps, kind: Kind, layer: int, head: int | None, all_heads: bool, queries: Sequence[str], keys: Sequence[str]
) -> list[HeatMap]:
    """The maps that the options ask for. Raises UsageError for a layer or a head that the model does not have."""
    from tgen.ui.heatmap import HeatMap

    layers = maps[kind]
    if not -len(layers) <= layer < len(layers):
        raise UsageError(f"--layer {layer}: there are {len(layers)} layers", f"give 0 to {len(layers) - 1}, or -1 for the last")
    weights, number = layers[layer], layer % len(layers)
    if head is not None and not -len(weights) <= head < len(weights):
        raise UsageError(f"--head {head}: there are {len(weights)} heads", f"give 0 to {len(weights) - 1}, or -1 for the last")
    if all_heads:
        return [HeatMap(f"{kind} {number}.{index}", one, queries, keys) for index, one in enumerate(weights)]
    if head is None:
        return [HeatMap(f"{kind}, layer {number}, mean of {len(weights)} heads", weights.mean(axis=0), queries, keys)]
    return [HeatMap(f"{kind}, layer {number}, head {head % len(weights)}", weights[head], queries, keys)]


def _show(heats: list[HeatMap], small: bool, svg: Path | None, json: bool) -> None:
    from tgen.ui.heatmap import draw_map, draw_small
    from tgen.ui.heatmap_svg import svg as draw_svg

    if json:
        rounded = [[[round(float(w), 6) for w in row] for row in heat.weights] for heat in heats]
        listed = [{"title": heat.title, "queries": heat.queries, "keys": heat.keys} for heat in heats]
        write_json([{**one, "weights": weights} for one, weights in zip(listed, rounded, strict=True)])
    elif svg is not None:
        files.write_text(svg, draw_svg(heats))
    else:
        width = shutil.get_terminal_size().columns
        write_text("\n".join(draw_small(heats, width) if small else draw_map(heats[0], width)).rstrip("\n") + "\n")
