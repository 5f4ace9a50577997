"""A case: one mutated folder and one command line, both of which follow from a seed and a number."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import bins, files, gguf_files, native, quantised_folders, tokenizers, values, weights
from tests.fuzz.mutation import MUTATIONS, Bases, Mutation, command_line
from tests.fuzz.runner import Ended, Worker, verdict

assert all((bins, files, gguf_files, native, quantised_folders, tokenizers, values, weights))  # importing them fills the list of mutations
KINDS = sorted({found.kind for found in MUTATIONS})


@dataclass(frozen=True, slots=True)
class Case:
    """`wrong` says what is wrong with how it ended, None if nothing is."""

    number: int
    mutation: Mutation
    arguments: list[str]
    ended: Ended
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Fuzzer:
    """Builds, runs and judges cases; folders of failures are kept under `root`."""

    seed: int
    kinds: Sequence[str]
    root: Path
    worker: Worker
    heavy: bool = True

    def run(self, number: int) -> Case:
        """One case; the same seed, number and kinds give the same folder."""
        random = Random(f"{self.seed} {number}")
        kind = self.kinds[number % len(self.kinds)]
        mutation = random.choice([found for found in MUTATIONS if found.kind == kind and (self.heavy or not found.heavy)])
        return run_case(number, mutation, random, self.root, self.worker)


def run_case(number: int, mutation: Mutation, random: Random, root: Path, worker: Worker) -> Case:
    """Damage a folder, run a command on it, and judge how that ends."""
    golden, form = random.choice(mutation.goldens), random.choice(mutation.forms)
    place = root / f"case {number}"
    folder = place / "model"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(Bases(root / "bases").folder(golden, form), folder)
    refused = bool(mutation.change(folder, random))
    own = {native.KIND: native.command_line, quantised_folders.KIND: quantised_folders.command_line}.get(mutation.kind)
    arguments = command_line(folder, golden, random) if own is None else own(folder, random)
    ended = worker.run(*arguments)
    only_tokenizes = arguments[0] == "tokenize"  # which reads no weights
    wrong = verdict(ended, refused=refused and not only_tokenizes)
    if (place / bins.MARKER).exists():
        wrong = "runs code from a file"
    if wrong is None:
        shutil.rmtree(place)
    return Case(number, mutation, arguments, ended, wrong)
