"""How much two copies of tgen at once write, against one alone: `python -m tests.benchmarks.two_copies` prints the share.

Each copy decodes with two threads for the same seconds. One and two take turns, and medians count, because others may share the machine.
Threads that wait for each other while the other copy has their cores cost both copies time: on two idle cores the share should be at
least 80 %. On a busy machine two copies get more of the cores than one, so the share says little there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.resolve import resolve
from tgen.executors.open import open_executor
from tgen.options import Quantize, RunOptions

LENGTH = 200  # tokens of a text; then the next one begins


def copy(model: str, quantize: Quantize, seconds: float) -> None:
    """Say when the model is loaded, and after a line on standard input how many tokens it wrote in these seconds."""
    executor = open_executor(open_checkpoint(resolve(model)), RunOptions(executor="native", threads=2, quantize=quantize))
    session = executor.open()
    session.admit([None])
    session.extend([[1]])
    print("ready", flush=True)
    sys.stdin.readline()
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        if count % LENGTH == 0:
            session.truncate([1])
        session.extend([[count % 100]])
        count += 1
    print(count, flush=True)


def rate(copies: int, model: str, quantize: Quantize, seconds: float) -> float:
    """Tokens a second of all copies together."""
    command = [sys.executable, "-m", "tests.benchmarks.two_copies", "--model", model, "--quantize", quantize]
    command += ["--seconds", str(seconds), "--copy"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(copies)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(int(process.communicate()[0]) for process in processes) / seconds


def main() -> None:
    """Print the median rates and their share."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.two_copies", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", default="storyteller")
    parser.add_argument("--quantize", choices=("none", "int8", "int4"), default="none")
    parser.add_argument("--copy", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.copy:
        return copy(options.model, options.quantize, options.seconds)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.turns):
        for copies, several in found.items():
            several.append(rate(copies, options.model, options.quantize, options.seconds))
    one, two = (statistics.median(several) for several in found.values())
    print(f"one copy {one:.1f} tokens/s, two copies together {two:.1f} tokens/s: {two / one:.0%}")
    return None


if __name__ == "__main__":
    main()
