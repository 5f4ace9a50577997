"""A slow reference for beam search: the model reads every beam anew at every step, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgen.engine.beam import Search, log_softmax32
from tgen.executors.session import Executor
from tgen.options import GenerationOptions
from tgen.sampling.adjustment import Adjustment
from tgen.sampling.rules import Rules


def search_alone(
    executor: Executor, prompt: Sequence[int], search: Search, options: GenerationOptions, rules: Rules, source: Sequence[int] | None = None
) -> Search:
    """Run a search to its end."""
    while not search.done:
        scores = []
        for ids in search.running:
            session = executor.open()
            session.admit([source])
            logits = session.extend([[*prompt, *ids]])
            adjustment = Adjustment(options, rules, prompt)
            for token in ids:
                adjustment.take(token)
            scores.append(adjustment.apply(log_softmax32(logits)[0])[1])
        search.advance(np.stack(scores))
    return search
