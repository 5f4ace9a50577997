"""Compares the greedy ids of GGUF files with those of llama.cpp: `python -m tests.checkpoint.against_llama_cpp --python PYTHON FILE...`.

PYTHON has llama-cpp-python; it may be another one. Where the ids part, the distance between llama.cpp's two best logits there tells
whether rounding can be the reason: it is shown in standard deviations of the logits, as is the largest difference of the first ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.open import open_executor
from tgen.options import RunOptions

IDS = (9, 40, 77, 123, 200)
# What runs in the other Python: for each file the ids, the first logits, and the distances of the two best ones.
THERE = """
import json, sys, llama_cpp
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, None)
path, count, ids = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
model, found, first, margins = llama_cpp.Llama(path, n_ctx=512, verbose=False, logits_all=True), [], None, []
for _ in range(count):
    model.eval(ids)
    logits = model.scores[model.n_tokens - 1]
    first = logits.tolist() if first is None else first
    ids = [int(logits.argmax())]
    found += ids
    logits.sort()
    margins.append(float(logits[-1] - logits[-2]))
json.dump({"ids": found, "first": first, "margins": margins}, sys.stdout)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoint.against_llama_cpp", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--count", type=int, default=60, help="how many ids [default: 60]")
    parser.add_argument("--ids", type=int, nargs="+", default=IDS, help="the prompt")
    options = parser.parse_args()
    for path in options.files:
        command = [options.python, "-c", THERE, str(path), str(options.count), json.dumps(list(options.ids))]
        theirs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        ids, first = greedy(path, list(options.ids), options.count)
        print(f"{path.name:40} {verdict(ids, first, theirs)}")


def greedy(path: Path, ids: list[int], count: int) -> tuple[list[int], np.ndarray]:
    """The ids that follow, and the logits of the first one."""
    session = open_executor(open_checkpoint(path), RunOptions()).open()
    session.admit([None])
    logits = first = session.extend([ids])[0]
    found: list[int] = []
    while len(found) < count:
        found.append(int(np.argmax(logits)))
        logits = session.extend([found[-1:]])[0]
    return found, first


def verdict(ids: list[int], first: np.ndarray, theirs: dict[str, Any]) -> str:
    wanted = np.array(theirs["first"])
    same = next((place for place, pair in enumerate(zip(ids, theirs["ids"], strict=True)) if pair[0] != pair[1]), len(ids))
    parted = "" if same == len(ids) else f", where llama.cpp's best two are {theirs['margins'][same] / wanted.std():.4f} apart"
    return f"{same} of {len(ids)} ids; logits differ by {np.abs(first - wanted).max() / wanted.std():.4f}{parted}"


if __name__ == "__main__":
    main()
