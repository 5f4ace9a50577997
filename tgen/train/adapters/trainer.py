"""Trains an adapter in the trainer's own loop. Only the low-rank changes learn, and only they are written."""

from __future__ import annotations

from torch import nn

from tgen.executors.torch.load import DTYPES, load_model
from tgen.executors.torch.placement import choose_dtype, memory_errors
from tgen.executors.torch.transformer import Transformer
from tgen.files import write_text
from tgen.options import RunOptions
from tgen.spec.shapes import parameter_count
from tgen.train.adapters.files import adapter_card, write_adapter
from tgen.train.adapters.low_rank import others, places, put_changes
from tgen.train.adapters.workspace import AdapterWorkspace
from tgen.train.trainer import Trainer


class AdapterTrainer(Trainer):
    """One run in one folder, for an adapter."""

    workspace: AdapterWorkspace

    def _first_model(self, anew: bool) -> Transformer:  # noqa: ARG002
        """The base model with changes that are still zero."""
        checkpoint = self.workspace.base.checkpoint
        dtype = choose_dtype(RunOptions(), self.device, DTYPES[checkpoint.matches.number_format], parameter_count(checkpoint.spec))
        with memory_errors("loading the weights"):
            model = load_model(checkpoint, self.device, dtype)
        self.adapter, self.places = self.workspace.adapter(), places(checkpoint, model)
        self.changes = put_changes(model, self.places, self.adapter.rank, self.adapter.alpha, self.settings.seed)
        return model.train()

    @property
    def learned(self) -> nn.Module:
        """The changes."""
        return self.changes

    def _write_model(self) -> None:
        folder = self.workspace.folder
        write_adapter(folder, self.adapter, self.changes, self.places, others(self.workspace.base.checkpoint, self.places))
        data, last, command = self.run_data.sizes, self.history[-1], self.usage(folder.name)
        card = adapter_card(folder.name, self.adapter, self.settings, self.changes, data, last, command)
        write_text(folder / "README.md", card)

    def _size(self) -> str:
        """The number of parameters that learn, and the size of the training data, for people."""
        matrices = (
            f"{self.changes.size / 1e6:.2f} M parameters in {len(self.changes.names)} matrices of {self.workspace.base.checkpoint.name}"
        )
        return f"{matrices}, {self.objective.describe()}"
