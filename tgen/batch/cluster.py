"""Lines answered on a Ray cluster: Ray Data hands blocks of lines to a pool of actors, each of which has loaded the model once.

A record depends on its line alone, so it is the same on any node. A block whose node dies is answered by another actor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tgen.batch.answering import Answer, Answerer, InputLine, Take, understand
from tgen.errors import TgenError, UsageError

# A block has this many lines for each row that an actor computes at once. With more, the rows are full for longer; with fewer, the loss of
# a node costs less work.
BLOCK = 4


class Actor:
    """Answers blocks of lines in a process of its own."""

    def __init__(self, open_answerer: Callable[[], Answerer], rows: int) -> None:
        self._answerer = open_answerer()
        self._rows = rows

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """The answers to the lines of a block, as columns."""
        lines = zip(block["number"].tolist(), block["line"].tolist(), strict=True)
        answers = self._answerer.answer_all(lines, self._rows)
        return {
            "number": np.array([answer.number for answer in answers]),
            "record": np.array([answer.record for answer in answers], dtype=object),
            "failed": np.array([answer.failed for answer in answers]),
            "tokens": np.array([answer.tokens for answer in answers]),
        }


class ClusterAnswers:
    """Answers lines on the nodes of a Ray cluster, in the order of the lines."""

    def __init__(self, address: str, open_answerer: Callable[[], Answerer], threads: int | None = None) -> None:
        """`open_answerer` runs on each node. An actor takes a GPU, or `threads` CPUs of a node, or as many CPUs as the smallest node has.

        Raises UsageError without Ray, and without a cluster at the address.
        """
        self._open = open_answerer
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UsageError("--ray needs Ray", "pip install 'tgen[ray]'") from error
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"no Ray cluster answers at {address}: {error}", "`ray start --head` starts one; auto finds it") from error
        for name in ("ray.data", "ray"):
            logging.getLogger(name).setLevel(logging.ERROR)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        cpus = threads or int(min(node["CPU"] for node in nodes))
        self._actors = gpus or sum(int(node["CPU"]) // cpus for node in nodes)
        self._each = {"num_gpus": 1} if gpus else {"num_cpus": cpus}

    def read(self, data: bytes, number: int) -> InputLine:
        """Understand a line, as far as that needs no model."""
        return understand(data, number)

    def run(self, take: Take, rows: int, cancelled: Callable[[], bool]) -> Iterator[Answer]:
        """The answers to all lines in their order. All lines are read first. Raises TgenError if Ray gives up."""
        import ray.data
        from ray.exceptions import RayError

        lines = []
        while (line := take(True)) is not None:
            lines.append({"number": line.key.number, "line": line.data})
        if not lines or cancelled():
            return
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        blocks = -(-len(lines) // (BLOCK * rows))
        answered = ray.data.from_items(lines, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(self._open, rows),
            batch_size=None,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, self._actors)),
            **self._each,
        )
        try:
            for row in answered.iter_rows():
                if cancelled():
                    return
                yield Answer(int(row["number"]), row["record"], bool(row["failed"]), int(row["tokens"]))
        except RayError as error:
            raise TgenError(f"the Ray cluster failed: {str(error).strip().splitlines()[-1]}", "--resume goes on with --output") from error
