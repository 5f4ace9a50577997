"""A slow reference for beam search: the model reads every beam anew at every step, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tgen.engine.beam import Process, Search, log_softmax32
from tgen.executors.session import Executor


def search_alone(
    executor: Executor, prompt: Sequence[int], search: Search, process: Process, source: Sequence[int] | None = None
) -> Search:
    """Run a search to its end."""
    while not search.done:
        scores = []
        for ids in search.running:
            session = executor.open()
            session.admit([source])
            logits = session.extend([[*prompt, *ids]])
            scores.append(process(log_softmax32(logits)[0], [*prompt, *ids], len(ids)))
        search.advance(np.stack(scores))
    return search
