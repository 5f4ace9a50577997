"""Compares the greedy ids of GGUF files with those of llama.cpp: `python -m tests.checkpoint.against_llama_cpp --python PYTHON [FILE...]`.

PYTHON has llama-cpp-python; it may be another one. Without files, random models of all architectures are written in float16, with the gguf
package or by llama.cpp's converter, and llama.cpp quantises them. llama.cpp reads the prompt in one piece, and once more id by id: it then
adds floats in another order, and so may itself write two texts. tgen has to write one of them.

A cell says how many ids are the same, and how far the logits then lie from llama.cpp's, in standard deviations. Both programs round to
integers, and the last bit of a float can turn one over: if ids part, a line says how far apart llama.cpp's two best logits are there.
The exit status is 1 if ids part where they are more than TIE apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tests.checkpoint.llama_cpp_models import CHANGES, gguf_file, random_folder
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.open import open_executor
from tgen.options import RunOptions

IDS = (9, 40, 77, 123, 200)
TIE = 1e-5
FORMATS = ("F16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K")
# What runs in the other Python: for each file the ids and logits of both ways, or the reason for there being none.
THERE = """
import ctypes, json, sys, numpy, llama_cpp
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, None)
source, formats, count, prompt = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
found = {}
for name in formats or [""]:
    path = source
    if formats and name != "F16":
        path = source.replace("F16", name)
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype, how.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}"), 1
        assert not llama_cpp.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(how)), "cannot quantise"
    model = llama_cpp.Llama(path, n_ctx=512, verbose=False, logits_all=True)
    for way, pieces in enumerate(([prompt], [[one] for one in prompt])):
        model.reset()
        for piece in pieces:
            model.eval(piece)
        ids, logits = [], []
        for _ in range(count):
            logits.append(model.scores[model.n_tokens - 1].copy())
            ids.append(int(logits[-1].argmax()))
            model.eval(ids[-1:])
        found |= {f"{path}:{way}:ids": ids, f"{path}:{way}:logits": logits}
numpy.savez(sys.argv[5], **found)
"""


class Text(NamedTuple):
    """What a program wrote: ids, and the logits [ids, vocabulary] that each was chosen from."""

    ids: npt.NDArray[Any]
    logits: npt.NDArray[Any]


class Cell(NamedTuple):
    """The comparison of one file: how many ids are the same and their logits' largest distance, and where they part the margin there."""

    same: int
    distance: float
    margin: float | None

    def __str__(self) -> str:
        return f"{self.same:3} {self.distance:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoint.against_llama_cpp", description=__doc__)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--count", type=int, default=60, help="how many ids [default: 60]")
    parser.add_argument("--ids", type=int, nargs="+", default=IDS, help="the prompt")
    parser.add_argument("--architectures", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="NAME")
    parser.add_argument("--formats", nargs="+", default=FORMATS, metavar="NAME", help="as llama.cpp's quantiser calls them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--converter", type=Path, help="llama.cpp's source folder, to convert with instead of the gguf package")
    options = parser.parse_args()
    parted: list[str] = []
    if options.files:
        for path in options.files:
            for name, cell in compared(path, (), options).items():
                sys.stdout.write(f"{name:40} {cell}\n")
                parted += _parting(name, cell)
    else:
        sys.stdout.write(f"{'':14}" + "".join(f"{name:>12}" for name in options.formats) + "\n")
        for architecture in options.architectures:
            for seed in options.seeds:
                parted += _row(architecture, seed, options)
    sys.stdout.write("".join(parted))
    sys.exit(bool(parted))


def _row(architecture: str, seed: int, options: argparse.Namespace) -> list[str]:
    """Print the row of a random model; returns lines about texts that part."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, architecture)
        random_folder(architecture, seed, folder)
        try:
            path = gguf_file(folder, options.converter)
        except RuntimeError as error:  # the converter wants a SentencePiece file for some
            return [f"{error}\n"]
        cells = compared(path, options.formats, options)
    sys.stdout.write(f"{architecture:12}{seed:2}" + "".join(f"{cell!s:>12}" for cell in cells.values()) + "\n")
    sys.stdout.flush()
    return [line for name, cell in cells.items() for line in _parting(f"{name}, seed {seed}", cell)]


def _parting(name: str, cell: Cell) -> list[str]:
    """A line about a text that parts from llama.cpp's."""
    if cell.margin is None or cell.margin <= TIE:
        return []
    return [f"{name}: parts at id {cell.same}, where llama.cpp's best two are {cell.margin:.5f} apart\n"]


def compared(path: Path, formats: tuple[str, ...], options: argparse.Namespace) -> dict[str, Cell]:
    """The comparison of a file, or of one in each format that llama.cpp makes of it, by the name of the file."""
    prompt = json.dumps(list(options.ids))
    with tempfile.TemporaryDirectory() as place:
        result = Path(place, "found.npz")
        command = [options.python, "-c", THERE, str(path), json.dumps(formats), str(options.count), prompt, str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"llama.cpp fails on {path.name}: {done.stderr.strip().splitlines()[-1]}")
        found = np.load(result)
        cells = {}
        for one in [Path(str(path).replace("F16", name)) for name in formats] or [path]:
            ways = [Text(found[f"{one}:{way}:ids"], found[f"{one}:{way}:logits"]) for way in (0, 1)]
            cells[one.name] = max((compare(written(one, options), way) for way in ways), key=lambda cell: cell.same)
    return cells


def written(path: Path, options: argparse.Namespace) -> Text:
    """What tgen writes."""
    session = open_executor(open_checkpoint(path), RunOptions()).open()
    session.admit([None])
    logits = [session.extend([list(options.ids)])[0]]
    while len(logits) < options.count:
        logits.append(session.extend([[int(np.argmax(logits[-1]))]])[0])
    return Text(np.argmax(logits, axis=-1), np.array(logits))


def compare(ours: Text, theirs: Text) -> Cell:
    differs = np.flatnonzero(ours.ids != theirs.ids)
    same = int(differs[0]) if len(differs) else len(ours.ids)
    scale = theirs.logits.std(axis=-1)
    distance = (np.abs(ours.logits - theirs.logits).max(axis=-1) / scale)[: same + 1].max()
    best = np.sort(theirs.logits, axis=-1)
    margins = (best[:, -1] - best[:, -2]) / scale
    return Cell(same, float(distance), float(margins[same]) if len(differs) else None)


if __name__ == "__main__":
    main()
