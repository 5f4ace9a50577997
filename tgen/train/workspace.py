"""The `training/` folder beside a model in training: settings, encoded text, and the state to resume from.

A kill at any moment leaves every file here whole or absent. Knows files, not how a step is made.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from tgen.errors import CheckpointError, UsageError
from tgen.executors.torch.save import write_json
from tgen.files import write_atomically, write_text
from tgen.train.base import Base
from tgen.train.corpus import Corpus, encode_documents, split_documents
from tgen.train.curve import curve
from tgen.train.documents import read_documents
from tgen.train.language import LanguageTask
from tgen.train.pairs import PairCorpus, PairTask, Side, encode_pairs, read_pairs, split_pairs
from tgen.train.settings import TrainSettings
from tgen.train.task import Task
from tgen.train.vocabulary import begin_prompts, end_token, learn_tokenizer, save_tokenizer

SETTINGS, STATE, LOG, CURVE = "settings.json", "state.pt", "loss.csv", "loss.svg"
SIDES = ("source", "target", "held_source", "held_target")


@dataclass(frozen=True, slots=True)
class RunData:
    """All that a run starts from: its settings, what it learns, its tokenizer, the sizes of the data and the names of its arrays."""

    settings: TrainSettings
    task: Task
    tokenizer: Tokenizer
    sizes: dict[str, int]
    arrays: list[str]


class Workspace:
    """A model's folder and the `training/` folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inner = folder / "training"
        self.first = self.inner / "base"  # the weights a run begins with, if they are not random

    def create(self, sources: list[str], settings: TrainSettings, held_back: list[str] | None = None, base: Base | None = None) -> None:
        """Read text, learn a tokenizer from it, encode it; `held_back` are sources to measure on, in place of a share of the text.

        With a `base` the run begins with its weights, and its tokenizer is used. Raises UsageError for a folder that holds something, or
        too little text.
        """
        self._check_empty()
        documents = list(read_documents(sources))
        if not documents:
            raise UsageError("there is no text to learn from")
        train, validation = split_documents(documents, settings.validation)
        if held_back:
            train, validation = documents, list(read_documents(held_back))
        tokenizer = learn_tokenizer(train, settings.vocab) if base is None else base.tokenizer
        if settings.beginnings:
            begin_prompts(tokenizer)
        end = end_token(tokenizer)
        corpus = Corpus(encode_documents(tokenizer, train, end), encode_documents(tokenizer, validation, end))
        corpus.check(settings.length)
        if base is not None:
            base.copy(self.first)
        self._save(tokenizer, settings, asdict(corpus), {"documents": len(documents), "characters": sum(map(len, documents))})

    def create_pairs(self, path: Path, settings: TrainSettings) -> int:
        """The same for a file of sentence pairs; returns how many pairs were too long and left out."""
        self._check_empty()
        pairs = read_pairs(path)
        if len(pairs) < 2:
            raise UsageError(f"there are {len(pairs)} pairs in {path}, too few to learn from", "one a line, source<TAB>target")
        train, held = split_pairs(pairs, settings.validation)
        tokenizer = learn_tokenizer((text for pair in train for text in pair), settings.vocab, sentences=True)
        corpus, dropped = encode_pairs(tokenizer, train, held, settings.context)
        arrays = {f"{name}_{part}": array for name in SIDES for part, array in asdict(getattr(corpus, name)).items()}
        sizes = {"pairs": len(pairs), "characters": sum(len(text) for pair in pairs for text in pair)}
        self._save(tokenizer, settings, {**arrays, "held_bytes": corpus.held_bytes}, sizes)
        return dropped

    def open(self) -> RunData:
        """What `create` left. Raises UsageError if there is nothing to resume, CheckpointError if it is damaged."""
        path = self.inner / SETTINGS
        if not path.is_file():
            raise UsageError(f"{self.folder} holds no training run to resume", "start one without --resume")
        try:
            stored = json.loads(path.read_text("utf-8"))
            settings = TrainSettings(**stored["settings"])
            tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            arrays = {name: np.load(self.inner / f"{name}.npy", mmap_mode="r") for name in stored["arrays"]}
            return RunData(settings, _task(settings, arrays, tokenizer), tokenizer, stored["data"], stored["arrays"])
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{self.inner} is damaged: {error}", "delete the folder and start again") from error

    def change_course(self, steps: int | None, minutes: float | None) -> None:
        """Let the run end after as many steps or minutes in all; the learning rate is from then on what it would be on that course."""
        run = self.open()
        self._write_settings(replace(run.settings, steps=steps, minutes=minutes), run.sizes, run.arrays)

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the state in one step."""
        write_atomically(self.inner / STATE, lambda path: torch.save(state, path))

    def load_state(self) -> dict[str, Any] | None:
        """The latest state, None if none was reached yet."""
        path = self.inner / STATE
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path} is damaged: {error}", "delete it to start the run from its first step") from error
        return state

    def write_log(self, history: list[dict[str, float]]) -> None:
        """The course of the run beside the model: as a CSV, one row an evaluation, and as a picture."""
        lines = [",".join(history[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in history)]
        write_text(self.folder / LOG, "\n".join(lines) + "\n")
        write_text(self.folder / CURVE, curve(history))

    def _check_empty(self) -> None:
        """Only what a run that was killed before its first step left behind may be overwritten."""
        unfinished = self.inner.is_dir() and not (self.inner / SETTINGS).exists()
        if self.folder.exists() and not unfinished and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self.folder} is not empty", "choose another folder, or --resume to go on with what it holds")

    def _save(self, tokenizer: Tokenizer, settings: TrainSettings, arrays: dict[str, Any], sizes: dict[str, int]) -> None:
        """Write everything, settings.json last, as the sign that all the rest is there."""
        self.inner.mkdir(parents=True, exist_ok=True)
        save_tokenizer(self.folder, tokenizer, settings.context)
        for name, array in arrays.items():
            write_atomically(self.inner / f"{name}.npy", partial(_write_array, array))
        self._write_settings(settings, sizes, list(arrays))

    def _write_settings(self, settings: TrainSettings, sizes: dict[str, int], arrays: list[str]) -> None:
        write_json(self.inner / SETTINGS, {"settings": settings.as_dict(), "data": sizes, "arrays": arrays})


def _write_array(array: Any, path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


def _task(settings: TrainSettings, arrays: dict[str, Any], tokenizer: Tokenizer) -> Task:
    """Text or pairs, by what was stored."""
    if "held_bytes" not in arrays:
        return LanguageTask(settings, Corpus(**arrays), tokenizer)
    sides = {name: Side(arrays[f"{name}_ids"], arrays[f"{name}_starts"]) for name in SIDES}
    return PairTask(settings, PairCorpus(**sides, held_bytes=arrays["held_bytes"]), tokenizer)
