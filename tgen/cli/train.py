"""`tgen train`: a small model and its tokenizer from your own text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tgen.cli import parameters as p
from tgen.cli.interrupts import Interrupts
from tgen.errors import TgenError, UsageError
from tgen.train.settings import TrainSettings
from tgen.ui import messages
from tgen.ui.training import TrainingView

if TYPE_CHECKING:
    from tgen.train.loop import Trainer

SHAPE, COURSE, TEXT = "Shape of the model", "Course of the training", "Text"
DEFAULTS = TrainSettings(minutes=10)


def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT...", help="Text files, .jsonl files with a text field, or - for standard input.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="The model's folder; new or empty.", rich_help_panel=COURSE)
    ] = Path("my-model"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its own settings.", rich_help_panel=COURSE)
    ] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Train for this long. [default: 10]", rich_help_panel=COURSE, show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Train for this many steps instead.", rich_help_panel=COURSE, show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Sequences in a step.", rich_help_panel=COURSE)] = DEFAULTS.batch,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Its peak.", rich_help_panel=COURSE)] = DEFAULTS.learning_rate,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps from checkpoint to checkpoint.", rich_help_panel=COURSE)] = 250,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first weights and the order of the text.", rich_help_panel=COURSE)] = 0,
    width: Annotated[int, typer.Option("--width", help="A multiple of 64.", rich_help_panel=SHAPE)] = DEFAULTS.width,
    layers: Annotated[int, typer.Option("--layers", help="How many.", rich_help_panel=SHAPE)] = DEFAULTS.layers,
    context: Annotated[int, typer.Option("--context", help="Tokens in a sequence.", rich_help_panel=SHAPE)] = DEFAULTS.context,
    vocab: Annotated[int, typer.Option("--vocab", help="Size of the vocabulary.", rich_help_panel=SHAPE)] = DEFAULTS.vocab,
    validation: Annotated[
        float, typer.Option("--validation", help="Share of the text to hold back.", rich_help_panel=TEXT)
    ] = DEFAULTS.validation,
    prompt: Annotated[
        str, typer.Option("--prompt", help="What the samples on the way continue.", rich_help_panel=TEXT)
    ] = "Once upon a time",
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the step. [default: if there is a C++ compiler]",
            rich_help_panel=COURSE,
            show_default=False,
        ),
    ] = None,
    device: p.DeviceOption = None,
    threads: p.Threads = None,
) -> int:
    """Train a small Llama-layout model and its tokenizer on your own text; the result is a plain Hugging Face folder.

    A checkpoint is written every so many steps; after Ctrl-C, a kill or a crash, --resume goes on from the last one.
    """
    messages.configure("auto", quiet=False)
    if minutes is None and steps is None:
        minutes = DEFAULTS.minutes
    settings = TrainSettings(
        width=width, layers=layers, vocab=vocab, context=context, batch=batch, steps=steps, minutes=minutes,
        learning_rate=learning_rate, validation=validation, seed=seed,
    )  # fmt: skip
    if resume == bool(sources):
        raise UsageError("give texts to start a run, or --resume and --out to go on with one, not both")

    from tgen.options import RunOptions
    from tgen.runtime.placement import choose_device, set_threads
    from tgen.train.loop import Trainer
    from tgen.train.workspace import Workspace

    options = RunOptions(device=device or "auto", threads=threads)
    set_threads(options)
    workspace = Workspace(out)
    with TrainingView() as view:
        if sources:
            view.say(f"reading the text and learning {vocab} tokens")
            workspace.create(sources, settings)
        trainer = Trainer(workspace, choose_device(options), compiled=compiled, every=every)
        with Interrupts() as interrupts:
            _run(trainer, view, prompt, interrupts)
        if interrupts.exit_code is not None:
            view.say(f"stopped; go on with: tgen train --resume --out {out}")
            return interrupts.exit_code
    messages.dim(f"done: tgen generate --model {out} {prompt!r}")
    return 0


def _run(trainer: Trainer, view: TrainingView, prompt: str, interrupts: Interrupts) -> None:
    from tgen.events import Evaluated

    try:
        for event in trainer.run(interrupts.asked):
            view.add(event)
            if isinstance(event, Evaluated):
                view.say(f"  {prompt}{_sample(trainer, prompt)}")
    except FloatingPointError as error:
        raise TgenError(f"training diverged: {error}", "start again with a lower --learning-rate") from error


def _sample(trainer: Trainer, prompt: str) -> str:
    """A few words of the model as it is now."""
    from tgen.engine.generator import Generator
    from tgen.runtime.open import sessions
    from tgen.text.tokenizer import Tokenizer

    generator = Generator(
        sessions(trainer.model),
        Tokenizer(trainer.tokenizer),
        context=trainer.settings.context,
        end_tokens=frozenset({trainer.config["eos_token_id"]}),
        start_token=trainer.config["bos_token_id"],
    )
    text = generator.generate(prompt, max_new_tokens=40, seed=trainer.settings.seed)
    return " ".join(text.split(" ")).replace("\n", " / ")
