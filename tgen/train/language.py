"""Learning to continue text: sequences cut from one long row of ids, each token predicted from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tgen.executors.torch.transformer import Transformer
from tgen.train.corpus import Corpus, document_starts, training_batch, validation_batches, with_beginnings
from tgen.train.settings import TrainSettings
from tgen.train.task import Arrays, Held
from tgen.train.vocabulary import bytes_per_token, end_token


class LanguageTask:
    """Text in Llama layout."""

    model_type = "llama"

    def __init__(self, settings: TrainSettings, corpus: Corpus, tokenizer: Tokenizer) -> None:
        end = end_token(tokenizer)
        self.settings = settings
        self.corpus = corpus
        self.config: dict[str, Any] = settings.language_config(tokenizer.get_vocab_size(), end)
        self.generation: dict[str, Any] = {
            "do_sample": True,
            "temperature": 0.8,
            "top_k": 40,
            "top_p": 0.95,
            "max_new_tokens": 200,
            "bos_token_id": end,
            "eos_token_id": end,
        }
        self._sizes = bytes_per_token(tokenizer)

    def batch(self, number: int) -> Arrays:
        """Sequences [batch, length + 1]."""
        settings, ids = self.settings, self.corpus.train
        rows = training_batch(ids, settings.length, settings.batch, settings.seed, number)
        if settings.beginnings:
            rows = with_beginnings(rows, ids, self._starts, settings.beginnings, settings.seed, number)
        return (rows,)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """Where documents begin; looked for only by a run that begins sequences there."""
        return document_starts(self.corpus.train, self.settings.length, self.config["bos_token_id"])

    def losses(self, model: Transformer, *arrays: Tensor) -> Tensor:
        """[batch, length]"""
        (sequences,) = arrays
        logits = model.logits(model(sequences[:, :-1])).float()
        return F.cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten(), reduction="none").view(len(sequences), -1)

    def held_back(self, limit: int | None) -> Iterator[Held]:
        """Consecutive sequences; the last batch is filled up, for a compiled step has one shape."""
        settings = self.settings
        for batch in validation_batches(self.corpus.validation, settings.length, settings.batch, limit):
            filled = np.concatenate([batch, np.repeat(batch[:1], settings.batch - len(batch), axis=0)])
            yield Held((filled,), len(batch), int(self._sizes[batch[:, 1:]].sum()))

    def describe(self) -> str:
        """Tokens."""
        return f"{len(self.corpus.train) / 1e6:.1f} M tokens to learn from, {len(self.corpus.validation) / 1e6:.2f} M held back"
