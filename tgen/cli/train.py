"""`tgen train`: a small model and its tokenizer from your own text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.prompt import check_encoding
from tgen.errors import TgenError, UsageError
from tgen.options import RunOptions
from tgen.train.settings import TrainSettings
from tgen.ui import messages
from tgen.ui.report import shell_words
from tgen.ui.training import TrainingView

if TYPE_CHECKING:
    from tgen.train.loop import Trainer
    from tgen.train.workspace import Workspace

SHAPE, COURSE, TEXT = "Shape of the model", "Course of the training", "Text"
DEFAULTS = TrainSettings(minutes=10)


def _number(name: str, help: str, panel: str, limits: str = "above 0", default: str | None = None) -> Any:  # noqa: A002
    """The option for a number of TrainSettings, which checks it; `default` is shown where there is none."""
    value = getattr(DEFAULTS, name)
    metavar = "FLOAT" if isinstance(value, float) else "INT"
    return p.option(f"--{name.replace('_', '-')}", help=help, panel=panel, metavar=metavar, limits=limits, default=default or f"{value:g}")


@p.takes(without=("dtype",))
def train(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Text files, .jsonl files with a text field, or - for standard input.")
    ] = None,
    pairs: Annotated[
        Path | None,
        p.option("--pairs", help="Learn to translate instead, from lines of source, tab, target.", panel=TEXT, metavar="FILE"),
    ] = None,
    held_back: Annotated[
        list[str] | None,
        p.option(
            "--held-back",
            panel=TEXT,
            metavar="TEXT",
            help="Measure on this text, in place of a share of what is learned from; may be given several times.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        p.option(
            "--base",
            panel=COURSE,
            metavar="PATH|NAME",
            help="Go on from a model that tgen train made from texts, with its weights, tokenizer and shape; --layers may add layers.",
        ),
    ] = None,
    base_share: Annotated[
        float,
        _number("base_share", "Write an average of --base, to this share, and of what was learned: it forgets less.", COURSE, "0 to 1"),
    ] = DEFAULTS.base_share,
    out: Annotated[
        Path, p.option("--out", "-o", help="The model's folder, new or empty.", panel=COURSE, metavar="FOLDER", default="my-model")
    ] = Path("my-model"),
    resume: Annotated[
        bool,
        p.option("--resume", panel=COURSE, help="Go on with the run in --out; only its --minutes or --steps can be others now."),
    ] = False,
    minutes: Annotated[
        float | None, p.option("--minutes", help="Train for this long in all.", panel=COURSE, metavar="FLOAT", limits="above 0", default=10)
    ] = None,
    steps: Annotated[
        int | None,
        p.option("--steps", help="Train for this many steps instead.", panel=COURSE, metavar="INT", limits="above 0"),
    ] = None,
    batch: Annotated[int, _number("batch", "Sequences in a step.", COURSE)] = DEFAULTS.batch,
    accumulate: Annotated[int, _number("accumulate", "Batches whose gradients are added up in a step.", COURSE)] = DEFAULTS.accumulate,
    beginnings: Annotated[
        float, _number("beginnings", "Share of the sequences that begin where a document does, as a prompt does.", COURSE, "0 to 1")
    ] = DEFAULTS.beginnings,
    sequence: Annotated[
        int | None,
        _number(
            "sequence",
            "Tokens in a sequence, with --base: fewer than its context are quicker, and enough for beginnings.",
            COURSE,
            default="the context",
        ),
    ] = DEFAULTS.sequence,
    learning_rate: Annotated[float, _number("learning_rate", "The highest, after warm-up.", COURSE)] = DEFAULTS.learning_rate,
    every: Annotated[
        int,
        p.option(
            "--every",
            panel=COURSE,
            metavar="INT",
            limits="1 or more",
            default=250,
            help="Steps from checkpoint to checkpoint, each with a measurement and a sample.",
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
            help="Settles the first weights and the order of the text.",
        ),
    ] = 0,
    compiled: Annotated[
        bool | None,
        p.option(
            "--compile/--no-compile",
            panel=COURSE,
            default="--compile where there is a C++ compiler",
            help="Compile the step, which takes a minute or two and then makes every step faster.",
        ),
    ] = None,
    width: Annotated[int | None, _number("width", "Of the vectors between layers.", SHAPE, "a multiple of 64")] = None,
    layers: Annotated[int | None, _number("layers", "Attention and feed-forward, that many times.", SHAPE)] = None,
    context: Annotated[int | None, _number("context", "Tokens in a sequence, and the most the model can ever look at.", SHAPE)] = None,
    vocab: Annotated[int | None, _number("vocab", "Size of the vocabulary learned from the text.", SHAPE, "300 to 65536")] = None,
    validation: Annotated[
        float | None, _number("validation", "Share of the text to hold back and measure on.", TEXT, "between 0 and 1")
    ] = None,
    prompt: Annotated[
        str, p.option("--prompt", help="What the samples on the way continue.", panel=TEXT, metavar="TEXT", default="Once upon a time")
    ] = "Once upon a time",
    *,
    run: RunOptions,
) -> int:
    """Train a small model and its tokenizer on your own text: Llama layout on texts, Marian layout on sentence pairs.

    The result is a plain Hugging Face folder. A checkpoint is written every so many steps; after Ctrl-C, a kill or a crash, --resume goes
    on from the last one.
    """
    messages.configure("auto", quiet=False)
    check_encoding("--prompt", prompt)
    p.check_least("--every", every, 1)
    p.check_least("--seed", seed, 0)
    asked = minutes is not None or steps is not None
    given: dict[str, Any] = {"width": width, "layers": layers, "vocab": vocab, "context": context, "validation": validation}
    given = {name: value for name, value in given.items() if value is not None}
    _check_apart(base, held_back, given)
    settings = TrainSettings(
        batch=batch, accumulate=accumulate, steps=steps, minutes=minutes if asked else DEFAULTS.minutes, learning_rate=learning_rate,
        seed=seed, beginnings=beginnings, sequence=sequence, base_share=base_share, **given,
    )  # fmt: skip
    if [bool(sources), pairs is not None, resume].count(True) != 1:
        raise UsageError("give texts or --pairs to start a run, or --resume and --out to go on with one, not both")
    _check_company(
        sources,
        base,
        {"--base": base, "--held-back": held_back, "--beginnings": beginnings},
        {"--base-share": base_share, "--sequence": sequence},
    )

    from tgen.executors.torch.placement import choose_device, set_threads
    from tgen.train.loop import Trainer
    from tgen.train.workspace import Workspace

    set_threads(run)
    workspace = Workspace(out)
    with TrainingView() as view:
        if sources:
            _begin(workspace, view, sources, held_back, base, layers, settings)
        elif pairs is not None:
            view.say(f"reading the pairs and learning {settings.vocab} tokens")
            dropped = workspace.create_pairs(pairs, settings)
            if dropped:
                view.say(f"{dropped} pairs are longer than --context {settings.context} and were left out")
        elif asked:
            workspace.change_course(steps, minutes)
        trainer = Trainer(workspace, choose_device(run), compiled=compiled, every=every)
        if trainer.share >= 1:
            trainer.compiled = False  # nothing is left that would be worth a minute of compiling
        with Interrupts() as interrupts:
            _run(trainer, view, prompt, interrupts)
        if interrupts.exit_code is not None:
            view.say(f"stopped; go on with: {shell_words(['tgen', 'train', '--resume', '--out', str(out)])}")
            return interrupts.exit_code
    command = "translate" if trainer.model.spec.encoder else "generate"
    messages.dim(f"done: {shell_words(['tgen', command, '--model', str(out), prompt])}")
    return 0


def _check_apart(base: str | None, held_back: list[str] | None, given: dict[str, Any]) -> None:
    """Whether nothing is said twice: the shape by a base too, or what to measure on."""
    shape = [name for name in given if name not in ("layers", "validation")]
    if shape and base is not None:
        hint = "a model that is gone on from has its shape; only layers can be added"
        raise UsageError(f"--{shape[0]} and --base exclude each other", hint)
    if "validation" in given and held_back:
        raise UsageError("--validation and --held-back exclude each other", "a share of the text, or a text of its own")


def _check_company(sources: list[str] | None, base: str | None, for_texts: dict[str, Any], for_base: dict[str, Any]) -> None:
    """Whether options for texts go with texts, and those for a base with a base."""
    for options, there, what in ((for_base, base, "with --base"), (for_texts, sources, "that starts from texts")):
        for name, value in options.items():
            if value and not there:
                raise UsageError(f"{name} is for a run {what}", f"leave {name} out")


def _begin(
    workspace: Workspace,
    view: TrainingView,
    sources: list[str],
    held_back: list[str] | None,
    base: str | None,
    layers: int | None,
    settings: TrainSettings,
) -> None:
    """Start a run on texts; a `base` to go on from is given `layers`, if that is said."""
    from tgen.checkpoint.resolve import resolve
    from tgen.train.base import Base

    found = None if base is None else Base(resolve(base), layers)
    settings = settings if found is None else found.settings(settings)
    view.say(f"reading the text and learning {settings.vocab} tokens" if found is None else "reading the text")
    workspace.create(sources, settings, held_back, found)


def _run(trainer: Trainer, view: TrainingView, prompt: str, interrupts: Interrupts) -> None:
    from tgen.events import Evaluated

    start = trainer.step
    try:
        # The first step may compile for a minute, and before it there is nothing to keep: until then Ctrl-C ends the run at once.
        for event in trainer.run(lambda: trainer.step > start and interrupts.asked()):
            view.add(event)
            if isinstance(event, Evaluated):
                between = " -> " if trainer.model.spec.encoder else ""
                view.say(f"  {prompt}{between}{_sample(trainer, prompt)}")
    except FloatingPointError as error:
        raise TgenError(f"training diverged: {error}", "start again with a lower --learning-rate") from error


def _sample(trainer: Trainer, prompt: str) -> str:
    """A few words of the model as it is now."""
    from tgen.engine.generator import Generator
    from tgen.executors.open import sessions
    from tgen.text.tokenizer import Tokenizer

    start, tokenizer = trainer.task.config["bos_token_id"], Tokenizer(trainer.tokenizer)
    generator = Generator(
        sessions(trainer.model),
        tokenizer,
        context=trainer.settings.context,
        end_tokens=frozenset({trainer.task.config["eos_token_id"]}),
        start_token=start,
        answer_start=start if trainer.model.spec.encoder else None,
    )
    text = generator.generate(prompt, max_new_tokens=40, seed=trainer.settings.seed)
    return text.replace("\n", " / ")
