"""tgen, llama.cpp and transformers on random checkpoints of real shapes: `python -m tests.benchmarks.side_by_side --help`.

The programs take turns, each in a process of its own, so that a machine whose speed drifts treats them alike. The table shows medians of
all rounds and the ratios of tgen to llama.cpp in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.rivals import CONTEXT, PREFILL, REPEATS, STEPS
from tests.benchmarks.shapes import SHAPES, write

FORMATS = ("bf16", "int8", "int4")
FIGURES = {"decode": "one row", "prefill": f"prefill of {PREFILL}", "rows": "16 rows"}
ROOT = Path(__file__).parents[2]

Speeds = dict[str, float]


def output(*command: object) -> str:
    """What a command prints; it goes to stderr too, so that nothing is lost if the run is cut short."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    print(*command[:4], done.stdout.strip(), file=sys.stderr, flush=True)
    return done.stdout


def tgen(folder: Path, kind: str, threads: int) -> tuple[Speeds, float, float]:
    """Speeds, the share of the read bandwidth that decoding one row uses, and that bandwidth in GB/s."""
    command = [sys.executable, "-m", "tgen", "bench", "-m", folder, "--json", "--threads", threads, "--repeats", REPEATS, "-n", STEPS]
    if kind != "bf16":
        command += ["--quantize", kind]
    found = json.loads(output(*command, "-c", CONTEXT, "-c", PREFILL))
    short, long = found["results"]
    speeds = {"decode": short["decode_speed"], "prefill": long["prefill_speed"], "rows": short["batch_speeds"]["16"]}
    return speeds, short["share"], short["memory_bytes_per_second"] / 1e9


def rival(python: str, program: str, path: str, threads: int) -> Speeds:
    found: Speeds = json.loads(output(python, ROOT / "tests" / "benchmarks" / "rivals.py", program, path, threads))
    return found


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/side-by-side"), help="where the checkpoints are kept")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-python", default=sys.executable, help="the Python that has llama-cpp-python")
    parser.add_argument("--no-transformers", action="store_true")
    settings = parser.parse_args()

    for shape in settings.shapes:
        if not Path(f"{settings.folder / shape}-int4.gguf").exists():
            write(settings.folder / shape, SHAPES[shape])
    found: dict[tuple[str, str, str], list[Speeds]] = defaultdict(list)
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    bandwidths: list[float] = []
    for turn in range(settings.rounds):
        for shape in settings.shapes:
            for kind in FORMATS:
                folder = settings.folder / shape
                speeds, share, bandwidth = tgen(folder, kind, settings.threads)
                found[shape, kind, "tgen"].append(speeds)
                shares[shape, kind].append(share)
                bandwidths.append(bandwidth)
                found[shape, kind, "llama.cpp"].append(rival(settings.llama_python, "llama.cpp", f"{folder}-{kind}.gguf", settings.threads))
                if kind == "bf16" and not settings.no_transformers:
                    found[shape, kind, "transformers"].append(rival(sys.executable, "transformers", str(folder), settings.threads))
            print(f"round {turn + 1} of {settings.rounds}: {shape} done", file=sys.stderr, flush=True)

    print(
        f"{settings.threads} threads; memory reads {min(bandwidths):.0f} to {max(bandwidths):.0f} GB/s; tokens a second, medians of turns\n"
    )
    print("| shape, format | figure | tgen | llama.cpp | ratio [rounds] | transformers | of the read bandwidth |")
    print("|---|---|---|---|---|---|---|")
    for shape in settings.shapes:
        for kind in FORMATS:
            for figure, name in FIGURES.items():
                ours, theirs, others = (
                    [speeds[figure] for speeds in found[shape, kind, program]] for program in ("tgen", "llama.cpp", "transformers")
                )
                ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
                print(
                    f"| {shape} {kind} | {name} | {statistics.median(ours):.0f} | {statistics.median(theirs):.0f} "
                    f"| {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] "
                    f"| {f'{statistics.median(others):.0f}' if others else ''} "
                    f"| {f'{statistics.median(shares[shape, kind]):.0%}' if figure == 'decode' else ''} |"
                )


if __name__ == "__main__":
    main()
