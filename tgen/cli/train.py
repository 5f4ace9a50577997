"""`tgen train`: trains a small model and its tokenizer on your own text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.prompt import check_encoding
from tgen.cli.settings import unalias
from tgen.cli.train_adapter import begin_adapter, check_adapter
from tgen.errors import UsageError
from tgen.options import RunOptions
from tgen.train.adapters.settings import DEFAULTS as ADAPTER
from tgen.train.adapters.settings import RANK, SEQUENCE
from tgen.train.settings import TrainSettings
from tgen.ui import messages
from tgen.ui.report import shell_words
from tgen.ui.training import TrainingView

if TYPE_CHECKING:
    from tgen.train.trainer import Trainer
    from tgen.train.workspace import Workspace

SHAPE, COURSE, TEXT = "Shape of the model", "Course of the training", "Text"
DEFAULTS = TrainSettings(minutes=10)


def _number(name: str, help: str, panel: str, limits: str = "above 0", default: str | None = None) -> Any:  # noqa: A002
    """The option for a number of TrainSettings, which checks it. Help shows `default`, or without one the record's own."""
    value = getattr(DEFAULTS, name)
    metavar = "FLOAT" if isinstance(value, float) else "INT"
    return p.option(f"--{name.replace('_', '-')}", help=help, panel=panel, metavar=metavar, limits=limits, default=default or f"{value:g}")


@p.takes(without=("dtype", "executor", "quantize", "adapter"))
def train(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Text files, .jsonl files with texts or messages, or - for standard input."),
    ] = None,
    pairs: Annotated[
        Path | None,
        p.option("--pairs", help="Learn to translate instead, from a file of source<TAB>target lines.", panel=TEXT, metavar="FILE"),
    ] = None,
    held_back: Annotated[
        list[str] | None,
        p.option(
            "--held-back",
            panel=TEXT,
            metavar="FILE",
            help="Measure on the text of this file, in place of a share of the training text; may be given several times.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        p.option(
            "--base",
            panel=COURSE,
            metavar="PATH|NAME",
            help="Go on from the weights, tokenizer and shape of a model that tgen train made from texts; --layers can add layers. With "
            "--adapter: any model that is decoder-only.",
        ),
    ] = None,
    adapter: Annotated[
        bool,
        p.option(
            "--adapter",
            panel=COURSE,
            help="Train a LoRA adapter for --base, which stays as it is: a small folder in peft's format, for --model or --adapter.",
        ),
    ] = False,
    rank: Annotated[
        int | None,
        p.option(
            "--rank",
            panel=COURSE,
            metavar="INT",
            limits="1 to 4096",
            default=RANK,
            help="With --adapter: the rank of its matrices, which sets its size.",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        p.option(
            "--alpha",
            panel=COURSE,
            metavar="FLOAT",
            limits="above 0",
            default="twice the rank",
            help="With --adapter: it changes the model by alpha / rank times the product of its matrices.",
        ),
    ] = None,
    base_share: Annotated[
        float,
        _number(
            "base_share",
            "Write an average in which --base has this share, and the trained weights the rest: such a model forgets less.",
            COURSE,
            "0 to 1",
        ),
    ] = DEFAULTS.base_share,
    output: Annotated[
        Path,
        p.option("--output", "--out", "-o", help="The model's folder, new or empty.", panel=COURSE, metavar="FOLDER", default="my-model"),
    ] = Path("my-model"),
    resume: Annotated[
        bool,
        p.option("--resume", panel=COURSE, help="Go on with the run in --output; only --minutes or --steps can be changed."),
    ] = False,
    minutes: Annotated[
        float | None, p.option("--minutes", help="Train for this long in all.", panel=COURSE, metavar="FLOAT", limits="above 0", default=10)
    ] = None,
    steps: Annotated[
        int | None,
        p.option("--steps", help="Train for this many steps instead.", panel=COURSE, metavar="INT", limits="above 0"),
    ] = None,
    batch: Annotated[
        int | None, _number("batch", "Sequences in a step.", COURSE, default=f"{DEFAULTS.batch}, with --adapter {ADAPTER['batch']}")
    ] = None,
    accumulate: Annotated[int, _number("accumulate", "Batches in a step: their gradients are added up.", COURSE)] = DEFAULTS.accumulate,
    beginnings: Annotated[
        float, _number("beginnings", "Share of the sequences that begin where a document begins, as a prompt does.", COURSE, "0 to 1")
    ] = DEFAULTS.beginnings,
    sequence: Annotated[
        int | None,
        _number(
            "sequence",
            "With --base: tokens in a sequence. Fewer than the context of --base train faster, and suffice to learn beginnings.",
            COURSE,
            default=f"the context, with --adapter {SEQUENCE} at most",
        ),
    ] = DEFAULTS.sequence,
    learning_rate: Annotated[
        float | None,
        _number(
            "learning_rate",
            "The highest learning rate, which the run reaches at the end of warm-up.",
            COURSE,
            default=f"{DEFAULTS.learning_rate:g}, with --adapter {ADAPTER['learning_rate']:g}",
        ),
    ] = None,
    every: Annotated[
        int,
        p.option(
            "--every",
            panel=COURSE,
            metavar="INT",
            limits="1 or more",
            default=250,
            help="Steps from one checkpoint to the next. Each measures the model on held-back text and shows a sample.",
        ),
    ] = 250,
    seed: Annotated[
        int,
        p.option(
            "--seed",
            panel=COURSE,
            metavar="INT",
            limits="0 or more",
            default=0,
            help="Determines the first weights, the order of the text, and the samples.",
        ),
    ] = 0,
    compiled: Annotated[
        bool | None,
        p.option(
            "--compile/--no-compile",
            panel=COURSE,
            default="--compile on texts, where there is a C++ compiler",
            help="Compile the step: that takes a minute or two and makes every step faster.",
        ),
    ] = None,
    width: Annotated[int | None, _number("width", "Width of the vectors between layers.", SHAPE, "a multiple of 64")] = None,
    layers: Annotated[int | None, _number("layers", "Number of layers, each of attention and feed-forward.", SHAPE)] = None,
    context: Annotated[int | None, _number("context", "Tokens in a sequence, and the most that the model can ever read.", SHAPE)] = None,
    vocab: Annotated[int | None, _number("vocab", "Size of the vocabulary learned from the text.", SHAPE, "300 to 65536")] = None,
    validation: Annotated[
        float | None, _number("validation", "Share of the text to hold back: the model is measured on it.", TEXT, "between 0 and 1")
    ] = None,
    prompt: Annotated[
        str | None,
        p.option(
            "--prompt", help="The prompt of the samples.", panel=TEXT, metavar="TEXT", default="the first words of the held-back text"
        ),
    ] = None,
    quiet: p.Quiet = False,  # noqa: ARG001
    *,
    run: RunOptions,
) -> int:
    """Train a small model and its tokenizer on your own text: Llama layout on texts, Marian layout on sentence pairs.

    The result is a plain Hugging Face folder. A run writes a checkpoint every few hundred steps (--every); after Ctrl-C, a kill or a crash,
    --resume goes on from the last one.
    """
    check_encoding("--prompt", prompt or "")
    p.check_least("--every", every, 1)
    p.check_least("--seed", seed, 0)
    asked = minutes is not None or steps is not None
    given: dict[str, Any] = {"width": width, "layers": layers, "vocab": vocab, "context": context, "validation": validation}
    given = {name: value for name, value in given.items() if value is not None}
    _check_apart(base, held_back, given)
    check_adapter(adapter, base, texts, {"--rank": rank, "--alpha": alpha}, {"--layers": layers, "--base-share": base_share})
    given |= {name: value for name, value in (("batch", batch), ("learning_rate", learning_rate)) if value is not None}
    settings = TrainSettings(
        accumulate=accumulate, steps=steps, minutes=minutes if asked else DEFAULTS.minutes, seed=seed, beginnings=beginnings,
        sequence=sequence, base_share=base_share, **{**(ADAPTER if adapter else {}), **given},
    )  # fmt: skip
    _check_start(texts, pairs, resume, held_back)
    _check_company(
        texts,
        base,
        {"--base": base, "--held-back": held_back, "--beginnings": beginnings},
        {"--base-share": base_share, "--sequence": sequence},
    )

    from tgen.executors.open import require_torch

    require_torch("tgen train")

    from tgen.executors.torch.placement import choose_device, set_threads
    from tgen.train.adapters.trainer import AdapterTrainer
    from tgen.train.adapters.workspace import AdapterWorkspace
    from tgen.train.trainer import Trainer
    from tgen.train.workspace import Workspace

    set_threads(run)
    tuned = AdapterWorkspace(output)
    workspace = tuned if adapter or (resume and tuned.is_begun) else Workspace(output)
    with TrainingView() as view:
        if texts and base is not None and adapter:
            view.say("reading the text")
            begin_adapter(tuned, texts, held_back, base, rank, alpha, settings)
        elif texts:
            _begin(workspace, view, texts, held_back, base, layers, settings)
        elif pairs is not None:
            _begin_pairs(workspace, view, pairs, settings)
        with workspace.held():
            if resume and asked:
                workspace.change_course(steps, minutes)
            kind = AdapterTrainer if workspace is tuned else Trainer
            trainer = kind(workspace, choose_device(run), compiled=compiled, every=every, prompt=prompt)
            with Interrupts() as interrupts:
                _run(trainer, view, interrupts)
        if interrupts.exit_code is not None:
            view.say(f"stopped; go on with: {shell_words(['tgen', 'train', '--resume', '--output', str(output)])}")
            return interrupts.exit_code
    messages.dim(f"done: {shell_words(trainer.usage(str(output)))}")
    return 0


def _check_start(texts: list[str] | None, pairs: Path | None, resume: bool, held_back: list[str] | None) -> None:
    """Raise UsageError unless there is one thing to start from, and all files are there."""
    from tgen.train.paths import check_files

    if [bool(texts), pairs is not None, resume].count(True) != 1:
        raise UsageError(
            "give exactly one of text files, --pairs and --resume",
            "text files or --pairs start a run; --resume goes on with the run in --output",
        )
    check_files([*(texts or ()), *(held_back or ())], pairs)


def _check_apart(base: str | None, held_back: list[str] | None, given: dict[str, Any]) -> None:
    """Raise UsageError for two options that set the same thing: the shape of the model, or the text to measure on."""
    shape = [name for name in given if name not in ("layers", "validation")]
    if shape and base is not None:
        hint = "the base model has its shape already; only --layers can add to it"
        raise UsageError(f"--{shape[0]} and --base exclude each other", hint)
    if "validation" in given and held_back:
        raise UsageError("--validation and --held-back exclude each other", "give a share of the training text, or files of other text")


def _check_company(texts: list[str] | None, base: str | None, for_texts: dict[str, Any], for_base: dict[str, Any]) -> None:
    """Raise UsageError for an option that needs a run on texts, or a base model, in a run without one."""
    for options, there, what in ((for_base, base, "with --base"), (for_texts, texts, "that starts from texts")):
        for name, value in options.items():
            if value and not there:
                raise UsageError(f"{name} is for a run {what}", f"leave {name} out")


def _begin(
    workspace: Workspace,
    view: TrainingView,
    texts: list[str],
    held_back: list[str] | None,
    base: str | None,
    layers: int | None,
    settings: TrainSettings,
) -> None:
    """Start a run on texts, from random weights or from the model `base` with `layers` layers."""
    from tgen.checkpoint.resolve import resolve
    from tgen.train.base_model import BaseModel

    found = None if base is None else BaseModel(resolve(unalias(base)), layers)
    settings = settings if found is None else found.settings(settings)
    view.say(f"reading the text and learning {settings.vocab} tokens" if found is None else "reading the text")
    workspace.create(texts, settings, held_back, found)


def _begin_pairs(workspace: Workspace, view: TrainingView, pairs: Path, settings: TrainSettings) -> None:
    """Start a run on sentence pairs."""
    view.say(f"reading the pairs and learning {settings.vocab} tokens")
    dropped = workspace.create_pairs(pairs, settings)
    if dropped:
        view.say(f"{dropped} pairs are longer than --context {settings.context} and were left out")


def _run(trainer: Trainer, view: TrainingView, interrupts: Interrupts) -> None:
    start = trainer.step
    # The first step may compile for a minute, and there is nothing to keep before it is done: until then Ctrl-C ends the run at once.
    for event in trainer.run(lambda: trainer.step > start and interrupts.asked()):
        view.add(event)
