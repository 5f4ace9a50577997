"""The `training/` folder beside an adapter in training. It names the base model, which must stay where it is."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Any

from tgen.errors import CheckpointError
from tgen.executors.torch.save import write_json
from tgen.files import read_json
from tgen.train.adapters.base import Base
from tgen.train.adapters.objective import AdapterObjective
from tgen.train.adapters.settings import AdapterSettings
from tgen.train.settings import TrainSettings
from tgen.train.texts import TextCorpus
from tgen.train.workspace import RunData, Workspace, read_texts

ADAPTER = "adapter.json"


class AdapterWorkspace(Workspace):
    """A folder for an adapter, and the `training/` folder in it."""

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds the run of an adapter."""
        return (self.inner / ADAPTER).is_file()

    def begin(self, texts: list[str], settings: TrainSettings, held_back: list[str] | None, base: Base, adapter: AdapterSettings) -> None:
        """Read the files `texts`, and encode them as the base model does. Raises the errors of `create`."""
        self._check_empty()
        data = read_texts(texts, settings, held_back, base.conversation)
        corpus = TextCorpus(base.encode(data.train), base.encode(data.validation))
        corpus.check(settings.length)
        self.inner.mkdir(parents=True, exist_ok=True)
        write_json(self.inner / ADAPTER, asdict(adapter))
        self._save(settings, asdict(corpus), data.sizes)

    def adapter(self) -> AdapterSettings:
        """The settings of the adapter. Raises CheckpointError for a damaged file."""
        try:
            return AdapterSettings(**read_json(self.inner / ADAPTER))
        except TypeError as error:
            raise CheckpointError(f"{self.inner / ADAPTER} is damaged: {error}", "delete the folder and start again") from error

    @cached_property
    def base(self) -> Base:
        """The base model. Raises CheckpointError if it no longer exists."""
        return Base(self.adapter().base)

    def open(self) -> RunData:
        """As `Workspace.open`; it also raises CheckpointError if the base model no longer exists."""
        if self.is_begun:
            _ = self.base
        return super().open()

    def _open(self, settings: TrainSettings, arrays: dict[str, Any], stored: dict[str, Any]) -> RunData:
        objective = AdapterObjective(settings, TextCorpus(**arrays), self.base)
        return RunData(settings, objective, self.base.library, stored["data"], stored["arrays"])
