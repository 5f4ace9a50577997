"""A model to go on from, in place of random weights. Knows which folders `tgen train` can take up, not how a step is made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tgen.checkpoint.folder import Checkpoint, open_checkpoint
from tgen.errors import CheckpointError, UsageError
from tgen.files import DOWNLOAD_HINT
from tgen.train.settings import HEAD_DIM, TrainSettings
from tgen.train.vocabulary import END

FILES = ("config.json", "model.safetensors")


class Base:
    """A model that `tgen train` made from texts: its weights, tokenizer and shape."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a model of another make, CheckpointError for a damaged one."""
        self.checkpoint = open_checkpoint(folder)
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read: {error}", DOWNLOAD_HINT) from error
        end = self.tokenizer.token_to_id(END)
        if end is None or not _made_by_training(self.checkpoint, end) or not all((folder / name).is_file() for name in FILES):
            message = f"--base {self.checkpoint.name} was not made by `tgen train` from texts"
            raise UsageError(message, "name a model that was, or leave --base out")

    def settings(self, settings: TrainSettings) -> TrainSettings:
        """Those of a run that begins with this model, so has its shape."""
        return replace(settings, **_shape(self.checkpoint.config))

    def copy(self, folder: Path) -> None:
        """Keep the weights with the run: it can be resumed whatever becomes of the model."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(self.checkpoint.folder / name, folder / name)


def _shape(config: dict[str, Any]) -> dict[str, int]:
    return {"width": config["hidden_size"], "layers": config["num_hidden_layers"], "context": config["max_position_embeddings"]}


def _made_by_training(checkpoint: Checkpoint, end: int) -> bool:
    """Whether the config is one that `tgen train` writes for some shape."""
    config = checkpoint.config
    if checkpoint.model_type != "llama" or checkpoint.spec.width % HEAD_DIM:
        return False
    try:
        wanted = TrainSettings(steps=1, **_shape(config)).language_config(config["vocab_size"], end)
    except (KeyError, TypeError, UsageError):
        return False
    return all(config.get(key) == value for key, value in wanted.items())
