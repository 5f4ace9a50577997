"""The model from which a run continues (`--base`), in place of random weights.

A base model can be given more layers. A new layer is a copy of the layer below it, with zeros in the two matrices that add to the
residual stream. So the deeper model at first computes what the base model does (LLaMA Pro, arXiv:2401.02415).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.errors import CheckpointError, UsageError
from tgen.executors.torch.save import save_tensors
from tgen.files import DOWNLOAD_HINT
from tgen.train.settings import HEAD_DIM, TrainSettings
from tgen.train.vocabulary import END

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LAYER = "model.layers."
ADDED_TO_THE_STREAM = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


class BaseModel:
    """A model that `tgen train` made from texts: its weights, tokenizer and shape."""

    def __init__(self, folder: Path, layers: int | None = None) -> None:
        """If `layers` is None, the model keeps its number of layers.

        Raises UsageError for a model that `tgen train` did not make from texts, and for fewer layers than it has; CheckpointError for a
        damaged folder.
        """
        if folder.is_file():
            raise UsageError(f"--base {folder.name} is a GGUF file", "name the folder of a model that tgen train made")
        self.checkpoint = open_checkpoint(folder)
        if self.checkpoint.adapters:
            raise UsageError(f"--base {folder.name} is an adapter", "name the model that it was trained on, or leave --base out")
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read: {error}", DOWNLOAD_HINT) from error
        end = self.tokenizer.token_to_id(END)
        if end is None or not _made_by_training(self.checkpoint, end) or not all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
            message = f"--base {self.checkpoint.name} was not made by `tgen train` from texts"
            raise UsageError(message, "name a model that was made so, or train an --adapter, for which any model can be the base")
        has = self.checkpoint.config["num_hidden_layers"]
        self.layers = has if layers is None else layers
        if self.layers < has:
            message = f"--layers {layers} is less than the {has} of --base {self.checkpoint.name}"
            raise UsageError(message, "a model can be given more layers, not fewer")

    def settings(self, settings: TrainSettings) -> TrainSettings:
        """The settings with the shape of this model. Raises UsageError for sequences longer than its context."""
        found = replace(settings, **{**_shape(self.checkpoint.config), "layers": self.layers})
        if found.length > found.context:
            message = f"--sequence {found.length} is longer than the context of --base {self.checkpoint.name}, {found.context} tokens"
            raise UsageError(message, "sequences can be shorter than the context, not longer")
        return found

    def copy(self, folder: Path) -> None:
        """Copy the weights, with the added layers, into a folder of the run, so that the run can be resumed without the base model."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.checkpoint.config
        weights = _grow(load_file(self.checkpoint.folder / WEIGHTS), config["num_hidden_layers"], self.layers)
        save_tensors(folder, {**config, "num_hidden_layers": self.layers}, weights)


def _shape(config: dict[str, Any]) -> dict[str, int]:
    return {"width": config["hidden_size"], "layers": config["num_hidden_layers"], "context": config["max_position_embeddings"]}


def _grow(weights: dict[str, Tensor], layers: int, wanted: int) -> dict[str, Tensor]:
    """The tensors of a model of `wanted` layers; the new layers are spread evenly among the old."""
    grown = {name: tensor for name, tensor in weights.items() if not name.startswith(LAYER)}
    for layer in range(wanted):
        old = layer * layers // wanted
        new = layer > 0 and old == (layer - 1) * layers // wanted
        prefix = f"{LAYER}{old}."
        for name in [name for name in weights if name.startswith(prefix)]:
            part = name.removeprefix(prefix)
            nothing = new and part in ADDED_TO_THE_STREAM
            grown[f"{LAYER}{layer}.{part}"] = torch.zeros_like(weights[name]) if nothing else weights[name].clone()
    return grown


def _made_by_training(checkpoint: Checkpoint, end: int) -> bool:
    """Whether the config is one that `tgen train` writes."""
    config = checkpoint.config
    if checkpoint.model_type != "llama" or checkpoint.spec.width % HEAD_DIM:
        return False
    try:
        wanted = TrainSettings(steps=1, **_shape(config)).text_config(config["vocab_size"], end)
    except (KeyError, TypeError, UsageError):
        return False
    return all(config.get(key) == value for key, value in wanted.items())
