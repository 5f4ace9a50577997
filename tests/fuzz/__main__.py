"""`python -m tests.fuzz --count 10000 --seed 1`: run mutated checkpoints, list what went wrong, and sum up."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.cases import KINDS, Case, Fuzzer
from tests.fuzz.runner import Worker


def main() -> int:
    """The exit code: 1 if any case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many cases [default: 1000]")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one, to repeat or to share the work")
    parser.add_argument("--step", type=int, default=1, help="from one number to the next; with --first, several processes share a seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="one case of each kind in turn [default: all]")
    parser.add_argument("--folder", type=Path, help="where folders are made and those of failures kept [default: a temporary one]")
    parser.add_argument("--show", action="store_true", help="show every case and what it said")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count * options.step, options.step)
    root = options.folder or Path(tempfile.mkdtemp(prefix="tgen-fuzz-"))
    root.mkdir(parents=True, exist_ok=True)
    found: list[Case] = []
    with Worker(root) as worker:
        fuzzer = Fuzzer(options.seed, options.kinds, root, worker)
        for case in map(fuzzer.run, numbers):
            found.append(case)
            if case.wrong is not None or options.show:
                tell(case, options.seed, options.kinds)
    table(found)
    return int(any(case.wrong for case in found))


def tell(case: Case, seed: int, kinds: list[str]) -> None:
    """A case, and how to run it again."""
    again = f"python -m tests.fuzz --seed {seed} --first {case.number} --count 1" + (
        f" --kinds {' '.join(kinds)}" if kinds != KINDS else ""
    )
    print(f"{case.mutation.kind}/{case.mutation.name}: {case.wrong or f'exit code {case.ended.code}'}")
    print(f"  {case.ended.seconds:.1f} s, {case.ended.memory / 2**20:.0f} MiB; tgen {shlex.join(case.arguments)}")
    print(f"  {again}")
    said = case.ended.err.splitlines()
    for line in [*said[:6], *(["..."] if len(said) > 16 else []), *said[6:][-10:]]:
        print(f"  | {line[:300]!r}")
    sys.stdout.flush()


def table(cases: list[Case]) -> None:
    """For each kind how often it ended how, the longest time and the most memory."""
    rows: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        rows[case.mutation.kind].append(case)
    print("kind            cases   runs  exit 1  exit 2  exit 3  exit 4  exit 5  wrong  seconds    MiB")
    for kind, ended in [*sorted(rows.items()), ("all", cases)]:
        outcomes = Counter("wrong" if case.wrong else str(case.ended.code) for case in ended)
        counts = " ".join(
            f"{outcomes[name]:{width}}" for name, width in (("0", 6), ("1", 7), ("2", 7), ("3", 7), ("4", 7), ("5", 7), ("wrong", 6))
        )
        slowest, largest = max(case.ended.seconds for case in ended), max(case.ended.memory for case in ended) / 2**20
        print(f"{kind:14} {len(ended):6} {counts} {slowest:8.1f} {largest:6.0f}")


if __name__ == "__main__":
    sys.exit(main())
