"""The `training/` folder beside a model in training: settings, encoded text, and the state to resume from.

A kill at any moment leaves every file here whole or absent. Knows files, not how a step is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from tgen.checkpoint.atomic import write_atomically, write_text
from tgen.checkpoint.save import write_json
from tgen.errors import CheckpointError, UsageError
from tgen.train.corpus import Corpus, Ids, encode_documents, split_documents
from tgen.train.documents import read_documents
from tgen.train.settings import TrainSettings
from tgen.train.vocabulary import end_token, learn_tokenizer, save_tokenizer

SETTINGS, STATE, LOG = "settings.json", "state.pt", "log.csv"


class Workspace:
    """A model's folder and the `training/` folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inner = folder / "training"

    def create(self, sources: list[str], settings: TrainSettings) -> None:
        """Read the text, learn the tokenizer, encode, and write settings.json last, as the sign that all the rest is there.

        Raises UsageError if the folder already holds something, or if there is too little text.
        """
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self.folder} is not empty", "choose another folder, or --resume to go on with what it holds")
        documents = list(read_documents(sources))
        if not documents:
            raise UsageError("there is no text to learn from")
        train, validation = split_documents(documents, settings.validation)
        tokenizer = learn_tokenizer(train, settings.vocab)
        end = end_token(tokenizer)
        corpus = Corpus(encode_documents(tokenizer, train, end), encode_documents(tokenizer, validation, end))
        corpus.check(settings.context)
        self.inner.mkdir(parents=True, exist_ok=True)
        save_tokenizer(self.folder, tokenizer, settings.context)
        self._save_ids("train", corpus.train)
        self._save_ids("validation", corpus.validation)
        sizes = {"documents": len(documents), "characters": sum(map(len, documents))}
        write_json(self.inner / SETTINGS, {"settings": settings.as_dict(), "data": sizes})

    def open(self) -> tuple[TrainSettings, Corpus, Tokenizer, dict[str, Any]]:
        """Settings, text, tokenizer and the sizes of the data, as `create` left them. Raises UsageError if there is nothing to resume."""
        path = self.inner / SETTINGS
        if not path.is_file():
            raise UsageError(f"{self.folder} holds no training run to resume", "start one without --resume")
        try:
            stored = json.loads(path.read_text("utf-8"))
            corpus = Corpus(np.load(self.inner / "train.npy", mmap_mode="r"), np.load(self.inner / "validation.npy", mmap_mode="r"))
            tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            return TrainSettings(**stored["settings"]), corpus, tokenizer, stored["data"]
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{self.inner} is damaged: {error}", "delete the folder and start again") from error

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
        """The course of the run as a CSV, one row an evaluation."""
        if history:
            lines = [",".join(history[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in history)]
            write_text(self.inner / LOG, "\n".join(lines) + "\n")

    def _save_ids(self, name: str, ids: Ids) -> None:
        def write(path: Path) -> None:
            with open(path, "wb") as file:
                np.save(file, ids)

        write_atomically(self.inner / f"{name}.npy", write)
