"""`tgen explain`: shows each decision of the sampler, token by token."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tgen.cli import options as p
from tgen.cli.interrupts import Interrupts
from tgen.cli.opening import open_generator
from tgen.cli.prompt import PromptArgument, PromptSource
from tgen.events import Note, Started
from tgen.options import RunOptions
from tgen.ui import messages
from tgen.ui.output import write_json, write_text

TOKENS = 10


@p.takes(
    without=("num_beams", "stop", "samples", "logprobs"),
    but={"max_new_tokens": {"help": "How many tokens to explain.", "aliases": ("-n",), "default": str(TOKENS)}},
)
def explain(
    prompt: PromptArgument = None,
    file: p.File = None,
    *,
    top: Annotated[
        int,
        p.option("--top", panel=p.OUTPUT, metavar="INT", limits="1 or more", default=8, help="How many candidates to show at each step."),
    ] = 8,
    asked: p.Asked,
    json: p.Json = False,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: p.Model = None,
    run: RunOptions,
) -> int:
    """Show each token's best candidates: raw logit and probability, then the probability after temperature and each filter.

    The filter that cuts a candidate is named in its column. A star marks the token drawn, with the random number that drew it and the
    borders of the token's share. Where biases, penalties or rules (--ban, --no-repeat-ngram-size, or others of the model's
    generation_config.json) changed a logit, the resulting score is shown too. With --json, one object for each step. The same seed draws
    what `tgen generate` draws.
    """
    p.check_least("--top", top, 1)
    asked = asked.preferring(max_new_tokens=TOKENS, num_beams=1)
    source = PromptSource(prompt, file)
    generator, _ = open_generator(model, run)

    from tgen.tasks.explaining import Step
    from tgen.tasks.explaining import explain as explained
    from tgen.ui.steps import draw_step

    with Interrupts() as interrupts:
        resolved = generator.resolve(asked.values, asked.environment)
        for event in explained(generator, source.read(), resolved, top, interrupts.asked):
            if isinstance(event, Note):
                messages.warning(event.text)
            elif isinstance(event, Started) and resolved.options.seed is None and resolved.options.temperature > 0:
                messages.dim(f"seed {event.seed}")
            elif isinstance(event, Step) and json:
                write_json(dataclasses.asdict(event))
            elif isinstance(event, Step):
                write_text(draw_step(dataclasses.asdict(event)) + "\n")
    return interrupts.exit_code or 0
