"""A model to go on from, in place of random weights. Knows which folders `tgen train` can take up, not how a step is made."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from tokenizers import Tokenizer

from tgen.checkpoint.folder import Checkpoint, open_checkpoint
from tgen.errors import UsageError
from tgen.train.settings import TrainSettings
from tgen.train.vocabulary import END

DEFAULTS = {field.name: field.default for field in fields(TrainSettings)}
SHAPE = {"width": "hidden_size", "layers": "num_hidden_layers", "vocab": "vocab_size", "context": "max_position_embeddings"}


def with_base(settings: TrainSettings, folder: Path) -> TrainSettings:
    """The settings of a run that begins with a folder's weights and tokenizer, so has its shape.

    Raises UsageError for a model that `tgen train` did not make from text, and where a shape was asked for that it does not have.
    """
    checkpoint = open_checkpoint(folder)
    tokenizer = base_tokenizer(folder)
    end = tokenizer.token_to_id(END)
    if end is None or not _made_by_training(checkpoint, settings, end):
        message = f"--base {checkpoint.name} was not made by `tgen train` from texts"
        raise UsageError(message, "name a model that was, or leave --base out")
    shape = {name: int(checkpoint.config[key]) for name, key in SHAPE.items()}
    for name, value in shape.items():
        if getattr(settings, name) not in (value, DEFAULTS[name]):
            asked = f"--{name} {getattr(settings, name)}"
            raise UsageError(f"{asked} does not fit --base {checkpoint.name}, which has {value}", f"leave --{name} out")
    return replace(settings, **shape, base=str(folder.resolve()))


def base_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a base, which the new text is encoded with."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _made_by_training(checkpoint: Checkpoint, settings: TrainSettings, end: int) -> bool:
    """Whether the config is one that `tgen train` writes for some shape."""
    config = checkpoint.config
    try:
        shaped = replace(settings, **{name: config[key] for name, key in SHAPE.items()})
    except (KeyError, TypeError, UsageError):
        return False
    wanted = shaped.language_config(config["vocab_size"], end)
    return all(config.get(key) == value for key, value in wanted.items())
