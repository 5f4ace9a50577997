"""`tgen explain`: what the sampler did, token by token."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

from tgen.cli import parameters as p
from tgen.cli.asked import asked_options
from tgen.cli.interrupts import Interrupts
from tgen.cli.model import open_generator
from tgen.cli.prompt import PromptArgument, PromptSource
from tgen.events import Note, Started
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

TOKENS = 10


def explain(
    prompt: PromptArgument = None,
    file: p.File = None,
    overflow: p.OverflowOption = None,
    top: Annotated[
        int,
        p.option("--top", panel=p.OUTPUT, metavar="INT", limits="1 or more", default=8, help="How many candidates to show at each step."),
    ] = 8,
    max_new_tokens: Annotated[
        int,
        p.option(
            "--max-new-tokens", "-n", panel=p.OUTPUT, metavar="INT", limits="1 or more", default=TOKENS, help="How many tokens to explain."
        ),
    ] = TOKENS,
    repetition_penalty: p.RepetitionPenalty = None,
    presence_penalty: p.PresencePenalty = None,
    frequency_penalty: p.FrequencyPenalty = None,
    no_repeat_ngram_size: p.NoRepeatNgramSize = None,
    temperature: p.Temperature = None,
    top_k: p.TopK = None,
    top_p: p.TopP = None,
    min_p: p.MinP = None,
    seed: p.Seed = None,
    ignore_eos: p.IgnoreEos = False,
    json_schema: p.JsonSchema = None,
    regex: p.Regex = None,
    choices: p.Choices = None,
    json: p.Json = False,
    quiet: p.Quiet = False,
    model: p.Model = None,
    device: p.DeviceOption = None,
    dtype: p.DtypeOption = None,
    threads: p.Threads = None,
) -> int:
    """Show each token's best candidates: raw logit and probability, then the probability after temperature, top-k, top-p and min-p.

    A candidate that is cut says so under the filter that cut it; the one drawn has a star, and the random number that drew it is shown with
    the borders of its share. Where penalties or rules (--no-repeat-ngram-size, or others of the model's generation_config.json) changed a
    logit, the score that came of it is shown too. With --json, one object for each step. The same seed draws what `tgen generate` draws.
    """
    values = locals()
    messages.configure("auto", quiet)
    p.check_least("--top", top, 1)
    asked = {**asked_options(values), "num_beams": 1}
    options = RunOptions(device or "auto", dtype or "auto", threads)
    source = PromptSource(prompt, file)
    generator, _ = open_generator(model, options)

    from tgen.tasks.explaining import Step
    from tgen.tasks.explaining import explain as explained
    from tgen.ui.steps import draw_step

    with Interrupts() as interrupts:
        resolved = generator.resolve(asked, os.environ)
        for event in explained(generator, source.read(), resolved, top, interrupts.asked):
            if isinstance(event, Note):
                messages.warning(event.text)
            elif isinstance(event, Started) and seed is None and resolved.options.temperature > 0:
                messages.dim(f"seed {event.seed}")
            elif isinstance(event, Step) and json:
                write_json(dataclasses.asdict(event))
            elif isinstance(event, Step):
                write_text(draw_step(dataclasses.asdict(event)) + "\n")
    return interrupts.exit_code or 0
