"""The `training/` folder beside a model in training: settings, encoded text, and the state to resume from.

A kill at any moment leaves every file here whole or absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from tgen.errors import CheckpointError, UsageError
from tgen.executors.torch.save import write_json
from tgen.files import lock, write_atomically, write_text
from tgen.train.base_model import BaseModel
from tgen.train.inputs import Writer, read_documents, read_pairs
from tgen.train.objective import Objective
from tgen.train.outputs import curve
from tgen.train.pairs import PairCorpus, PairObjective, Side, encode_pairs, split_pairs
from tgen.train.settings import TrainSettings
from tgen.train.texts import TextCorpus, TextObjective, encode_documents, split_documents
from tgen.train.vocabulary import USER, begin_prompts, conversation, end_token, knows_chats, learn_tokenizer, save_tokenizer

SETTINGS, STATE, LOG, CURVE = "settings.json", "state.pt", "loss.csv", "loss.svg"
SIDES = ("source", "target", "held_source", "held_target")


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run starts from: its settings, its objective, its tokenizer, the sizes of its data and the names of its arrays."""

    settings: TrainSettings
    objective: Objective
    tokenizer: Tokenizer
    sizes: dict[str, int]
    arrays: list[str]


@dataclass(frozen=True, slots=True)
class Texts:
    """All documents of the training files, those to learn from, and those held back, which may come from other files."""

    documents: list[str]
    train: list[str]
    validation: list[str]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of documents, of characters, and of characters that are held back."""
        characters, held_back = (sum(map(len, some)) for some in (self.documents, self.validation))
        return {"documents": len(self.documents), "characters": characters, "held_back": held_back}


def read_texts(names: list[str], settings: TrainSettings, held_back: list[str] | None, write: Writer = conversation) -> Texts:
    """The documents of files, of which a share is held back unless `held_back` names other files.

    Raises UsageError if there is no text.
    """
    documents = list(read_documents(names, write))
    if not documents:
        raise UsageError("there is no text to learn from", "give files that hold some")
    if held_back:
        return Texts(documents, documents, list(read_documents(held_back, write)))
    return Texts(documents, *split_documents(documents, settings.validation))


class Workspace:
    """A model's folder and the `training/` folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inner = folder / "training"
        self.first = self.inner / "base"  # a copy of the base model, if there is one

    def create(self, texts: list[str], settings: TrainSettings, held_back: list[str] | None = None, base: BaseModel | None = None) -> None:
        """Read the files `texts`, learn a tokenizer from them, and encode them.

        `held_back` names files to measure on, in place of a share of the texts. With a `base`, the run begins with its weights and uses its
        tokenizer. Raises UsageError for a folder that is not empty, and for too little text.
        """
        self._check_empty()
        data = read_texts(texts, settings, held_back)
        chat = any(USER in document for document in data.documents)
        tokenizer = learn_tokenizer(data.train, settings.vocab, chat=chat) if base is None else base.tokenizer
        if chat and not knows_chats(tokenizer):
            raise UsageError("the base model has no tokens for conversations", "begin without --base, or give texts without messages")
        if settings.beginnings:
            begin_prompts(tokenizer)
        end = end_token(tokenizer)
        corpus = TextCorpus(encode_documents(tokenizer, data.train, end), encode_documents(tokenizer, data.validation, end))
        corpus.check(settings.length)
        if base is not None:
            base.copy(self.first)
        self._write_tokenizer(tokenizer, settings)
        self._save(settings, asdict(corpus), data.sizes)

    def create_pairs(self, path: Path, settings: TrainSettings) -> int:
        """The same for a file of sentence pairs. Returns how many pairs were left out because they do not fit into the context."""
        self._check_empty()
        pairs = read_pairs(path)
        if len(pairs) < 2:
            raise UsageError(f"there are {len(pairs)} pairs in {path}, too few to learn from", "give one pair a line, source<TAB>target")
        train, held = split_pairs(pairs, settings.validation)
        tokenizer = learn_tokenizer((text for pair in train for text in pair), settings.vocab, sentences=True)
        corpus, dropped = encode_pairs(tokenizer, train, held, settings.context)
        arrays = {f"{name}_{part}": array for name in SIDES for part, array in asdict(getattr(corpus, name)).items()}
        characters, held_back = (sum(len(text) for pair in some for text in pair) for some in (pairs, held))
        sizes = {"pairs": len(pairs), "characters": characters, "held_back": held_back}
        self._write_tokenizer(tokenizer, settings)
        self._save(settings, {**arrays, "held_bytes": corpus.held_bytes}, sizes)
        return dropped

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of this run. Raises UsageError if another process trains in the folder, or if there is no run."""
        if not self.inner.is_dir():
            raise self._not_begun()
        folder = os.open(self.inner, os.O_RDONLY)
        try:
            lock(folder, self.folder)
            yield
        finally:
            os.close(folder)

    def open(self) -> RunData:
        """The run that `create` prepared. Raises UsageError if there is none, CheckpointError if its files are damaged."""
        path = self.inner / SETTINGS
        if not path.is_file():
            raise self._not_begun()
        try:
            stored = json.loads(path.read_text("utf-8"))
            settings = TrainSettings(**stored["settings"])
            arrays = {name: np.load(self.inner / f"{name}.npy", mmap_mode="r") for name in stored["arrays"]}
            return self._open(settings, arrays, stored)
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{self.inner} is damaged: {error}", "delete the folder and start again") from error

    def _open(self, settings: TrainSettings, arrays: dict[str, Any], stored: dict[str, Any]) -> RunData:
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        return RunData(settings, _objective(settings, arrays, tokenizer), tokenizer, stored["data"], stored["arrays"])

    def change_course(self, steps: int | None, minutes: float | None) -> None:
        """Make the run end after `steps` or `minutes` in all. From now on the learning rate is that of a run of this length."""
        run = self.open()
        self._write_settings(replace(run.settings, steps=steps, minutes=minutes), run.sizes, run.arrays)

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the stored state as a whole, so that a kill leaves the old one or the new one."""
        write_atomically(self.inner / STATE, lambda path: torch.save(state, path))

    def load_state(self) -> dict[str, Any] | None:
        """The latest state; None before the first checkpoint. Raises CheckpointError for a damaged file."""
        path = self.inner / STATE
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path} is damaged: {error}", "delete it to start the run from its first step") from error
        return state

    def write_log(self, history: list[dict[str, float]]) -> None:
        """Write the history beside the model: as a CSV with one row for each evaluation, and as a picture."""
        lines = [",".join(history[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in history)]
        write_text(self.folder / LOG, "\n".join(lines) + "\n")
        write_text(self.folder / CURVE, curve(history))

    def _not_begun(self) -> UsageError:
        return UsageError(f"{self.folder} holds no training run to resume", "start one without --resume")

    def _check_empty(self) -> None:
        """Raise UsageError unless the folder is new, empty, or left by a run that was killed before it had saved its settings."""
        unfinished = self.inner.is_dir() and not (self.inner / SETTINGS).exists()
        if self.folder.exists() and not unfinished and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self.folder} is not empty", "choose another folder, or --resume to go on with what it holds")

    def _write_tokenizer(self, tokenizer: Tokenizer, settings: TrainSettings) -> None:
        self.inner.mkdir(parents=True, exist_ok=True)
        save_tokenizer(self.folder, tokenizer, settings.context)

    def _save(self, settings: TrainSettings, arrays: dict[str, Any], sizes: dict[str, int]) -> None:
        """Write the data. settings.json is written last, as the sign that the rest is complete."""
        for name, array in arrays.items():
            write_atomically(self.inner / f"{name}.npy", partial(_write_array, array))
        self._write_settings(settings, sizes, list(arrays))

    def _write_settings(self, settings: TrainSettings, sizes: dict[str, int], arrays: list[str]) -> None:
        write_json(self.inner / SETTINGS, {"settings": settings.as_dict(), "data": sizes, "arrays": arrays})


def _write_array(array: Any, path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


def _objective(settings: TrainSettings, arrays: dict[str, Any], tokenizer: Tokenizer) -> Objective:
    """The objective for texts or pairs, depending on the names of the arrays."""
    if "held_bytes" not in arrays:
        return TextObjective(settings, TextCorpus(**arrays), tokenizer)
    sides = {name: Side(arrays[f"{name}_ids"], arrays[f"{name}_starts"]) for name in SIDES}
    return PairObjective(settings, PairCorpus(**sides, held_bytes=arrays["held_bytes"]), tokenizer)
