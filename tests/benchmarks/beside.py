"""How long a row waits for its next token while another request's prompt is read: `python -m tests.benchmarks.beside` prints ratios.

Each turn starts a request that writes, waits for some of its tokens, adds a request with a long prompt, and goes on until the prompt has
been read. A gap is the time between two tokens of the first request.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tgen.engine.generator import Generator
from tgen.engine.opening import load
from tgen.engine.request import Request
from tgen.engine.scheduler import Scheduler
from tgen.events import Piece

BEFORE = 60  # tokens that the first request writes alone


def gaps(generator: Generator, length: int) -> tuple[list[float], list[float]]:
    """Milliseconds between the tokens of a request before and while a prompt of so many ids is read."""
    ids = (generator.tokenizer.encode("Once upon a time there was a king who had three sons. ") * length)[:length]
    options = generator.resolve({"max_new_tokens": 900, "ignore_eos": True, "seed": 1})
    scheduler = Scheduler(generator.executor, 4)
    scheduler.add(generator.job(Request(0, ids[:4], options)))
    alone: list[float] = []
    beside: list[float] = []
    added, read, last = False, False, 0.0
    while not read:
        told = scheduler.step()
        now = time.perf_counter()
        if any(key == 0 and isinstance(event, Piece) for key, event in told):
            if last:
                (beside if added else alone).append(1000 * (now - last))
            last = now
        read = any(key == 1 and isinstance(event, Piece) for key, event in told)
        if not added and len(alone) >= BEFORE:
            short = generator.resolve({"max_new_tokens": 2, "ignore_eos": True, "seed": 2})
            scheduler.add(generator.job(Request(1, ids, short)))
            added = True
    return alone, beside


def main() -> None:
    """Print a line for each turn."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.beside", description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--length", type=int, default=900)
    parser.add_argument("--model", default="storyteller")
    parser.add_argument("--executor", default="auto")
    asked = parser.parse_args()
    generator = load(asked.model, executor=asked.executor)
    print("milliseconds: median alone, median beside, longest beside; longest beside / median alone, longest beside / median of all")
    for _ in range(asked.turns):
        alone, beside = gaps(generator, asked.length)
        middle, longest, everything = statistics.median(alone), max(beside), statistics.median([*alone, *beside])
        print(
            f"{middle:8.2f}{statistics.median(beside):8.2f}{longest:8.2f}; {longest / middle:.2f}, {longest / everything:.2f} in "
            f"{len(beside)} steps; alone the longest was {max(alone) / middle:.2f} times the median"
        )


if __name__ == "__main__":
    main()
