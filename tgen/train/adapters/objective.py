"""Learning to continue text, with the tokens of a base model of any family."""

from __future__ import annotations

from typing import Any

import numpy as np

from tgen.train.adapters.base import Base
from tgen.train.settings import TrainSettings
from tgen.train.texts import OPENING_TOKENS, TextCorpus, TextObjective


class AdapterObjective(TextObjective):
    """The next token of a text, for a base model with an adapter."""

    def __init__(self, settings: TrainSettings, corpus: TextCorpus, base: Base) -> None:
        self._base = base
        self.model_type = base.checkpoint.model_type
        super().__init__(settings, corpus, base.library)

    def _describe_model(self) -> None:
        self.config: dict[str, Any] = self._base.config
        self.generation: dict[str, Any] = {}
        self._sizes = self._base.sizes()

    def _beginning(self) -> str:
        ids = self.corpus.validation[:OPENING_TOKENS]
        documents = np.split(ids, np.flatnonzero(ids == self._base.end) + 1)
        return "\n".join(self._tokenizer.decode(document.tolist(), skip_special_tokens=True) for document in documents)
