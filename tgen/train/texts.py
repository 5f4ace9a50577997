"""Learning to continue text: documents as one long row of ids, sequences cut from it, each token predicted from those before it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tgen.errors import UsageError
from tgen.executors.torch.transformer import Transformer
from tgen.train.objective import SPLIT_SEED, Arrays, HeldBack, Ids
from tgen.train.settings import TrainSettings
from tgen.train.vocabulary import END, bytes_per_token, end_token

Rows = npt.NDArray[np.int64]
OPENING_TOKENS, OPENING_CHARACTERS = 4096, 30


@dataclass(frozen=True, slots=True)
class TextCorpus:
    """Ids to learn from and ids held back; an end token follows every document."""

    train: Ids
    validation: Ids

    def check(self, length: int) -> None:
        """Raise UsageError unless both parts hold at least one sequence of `length` tokens and the token after it."""
        for name, ids in (("training", self.train), ("validation", self.validation)):
            if len(ids) <= length:
                raise UsageError(
                    f"the {name} text has {len(ids)} tokens, too few for sequences of {length}",
                    "give more text, or a smaller --context (with --base, --sequence)",
                )


class TextObjective:
    """The next token of a text, for a model in Llama layout."""

    model_type = "llama"

    def __init__(self, settings: TrainSettings, corpus: TextCorpus, tokenizer: Tokenizer) -> None:
        self.settings = settings
        self.corpus = corpus
        self._tokenizer = tokenizer
        self._sequences = Sequences(corpus.train, settings.length, settings.seed)
        self._describe_model()

    def _describe_model(self) -> None:
        """Set what depends on the model: its config, its settings for generation, and the bytes of its tokens."""
        end = end_token(self._tokenizer)
        self.config: dict[str, Any] = self.settings.text_config(self._tokenizer.get_vocab_size(), end)
        self.generation: dict[str, Any] = {
            "do_sample": True,
            "temperature": 0.8,
            "top_k": 40,
            "top_p": 0.95,
            "max_new_tokens": 200,
            "bos_token_id": end,
            "eos_token_id": end,
        }
        self._sizes = bytes_per_token(self._tokenizer)

    def batch(self, number: int) -> Arrays:
        """Sequences [batch, length + 1]."""
        settings = self.settings
        rows = self._sequences.batch(number, settings.batch)
        if settings.beginnings:
            rows = with_beginnings(rows, self.corpus.train, self._starts, settings.beginnings, settings.seed, number)
        return (rows,)

    @cached_property
    def _starts(self) -> Rows:
        """The places where documents begin. Only a run with `beginnings` searches for them."""
        return document_starts(self.corpus.train, self.settings.length, self.config["bos_token_id"])

    def losses(self, model: Transformer, *arrays: Tensor) -> Tensor:
        """The losses [batch, length] of sequences [batch, length + 1]."""
        (sequences,) = arrays
        logits = model.logits(model(sequences[:, :-1])).float()
        return F.cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten(), reduction="none").view(len(sequences), -1)

    def held_back(self, limit: int | None) -> Iterator[HeldBack]:
        """Consecutive sequences. Copies of its first row fill up the last batch, because a compiled step has one shape."""
        settings = self.settings
        for batch in validation_batches(self.corpus.validation, settings.length, settings.batch, limit):
            filled = np.concatenate([batch, np.repeat(batch[:1], settings.batch - len(batch), axis=0)])
            yield HeldBack((filled,), len(batch), int(self._sizes[batch[:, 1:]].sum()))

    def opening(self) -> str:
        """The first words of the first held-back line that has any."""
        line = next((line for line in self._beginning().splitlines() if line.strip()), "").strip()
        if len(line) <= OPENING_CHARACTERS:
            return line
        cut = line[: OPENING_CHARACTERS + 1].rpartition(" ")[0]
        return cut or line[:OPENING_CHARACTERS]

    def _beginning(self) -> str:
        """The beginning of the held-back text, with a new line for each document."""
        return self._tokenizer.decode(self.corpus.validation[:OPENING_TOKENS].tolist(), skip_special_tokens=False).replace(END, "\n")

    def describe(self) -> str:
        """The numbers of tokens."""
        return f"{len(self.corpus.train):,} tokens to learn from, {len(self.corpus.validation):,} held back"


class Sequences:
    """Sequences of `length` tokens, each with the token after it: every epoch cuts the ids at other places and shuffles the pieces."""

    def __init__(self, ids: Ids, length: int, seed: int) -> None:
        self._ids, self._length, self._seed = ids, length, seed
        self._per_epoch = max(1, (len(ids) - 1 - length) // length)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)  # a batch may span two epochs; shuffling a large text takes longer than a step

    def batch(self, number: int, size: int) -> Rows:
        """The number-th batch, [size, length + 1], which depends only on the seed and the number."""
        return np.stack([self._sequence(i) for i in range(number * size, (number + 1) * size)])

    def _sequence(self, number: int) -> Rows:
        epoch, index = divmod(number, self._per_epoch)
        order, offset = self._epoch(epoch)
        start = offset + int(order[index]) * self._length
        return self._ids[start : start + self._length + 1].astype(np.int64)

    def _make_epoch(self, epoch: int) -> tuple[Rows, int]:
        """The order of an epoch's pieces, and the place where the first of them starts."""
        generator = np.random.default_rng((self._seed, epoch))
        offset = int(generator.integers(0, max(1, len(self._ids) - 1 - self._per_epoch * self._length)))
        return generator.permutation(self._per_epoch), offset


def split_documents(documents: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Documents to learn from, and documents held back, which are about `share` of all text.

    Fewer than 20 documents are cut into pieces first.
    """
    if len(documents) < 20:
        documents = [piece for document in documents for piece in _pieces(document)]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(documents))
    wanted = share * sum(len(document) for document in documents)
    held_back: set[int] = set()
    size = 0
    for index in order:
        if size >= wanted:
            break
        # A single long book would be most of the validation text; prefer several shorter ones.
        if held_back and len(documents[index]) > wanted / 2:
            continue
        held_back.add(int(index))
        size += len(documents[index])
    train = [document for i, document in enumerate(documents) if i not in held_back]
    return train, [documents[i] for i in sorted(held_back)]


def _pieces(document: str) -> list[str]:
    """Cut a document at white space into pieces of 4,000 characters, or a short one into about fifty pieces."""
    size = min(4000, max(1, len(document) // 50))
    pieces, start = [], 0
    for found in re.finditer(r"\s", document):
        if found.end() - start >= size:
            pieces.append(document[start : found.end()])
            start = found.end()
    return [*pieces, document[start:]] if start < len(document) else pieces


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str], end: int) -> Ids:
    """The ids of all documents in one row, each document followed by the end token, [tokens]."""
    parts: list[Ids] = []
    for start in range(0, len(documents), 64):
        for encoding in tokenizer.encode_batch(list(documents[start : start + 64]), add_special_tokens=False):
            parts.append(np.array([*encoding.ids, end], dtype=np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


def document_starts(ids: Ids, length: int, end: int) -> Rows:
    """The places where a sequence can begin with a document: at the end token before it, because a prompt begins with that token, too."""
    ends = np.flatnonzero(ids == end)
    return ends[ends + length < len(ids)]


def with_beginnings(rows: Rows, ids: Ids, starts: Rows, share: float, seed: int, number: int) -> Rows:
    """The number-th batch with about `share` of its rows replaced by beginnings of documents, all equally likely.

    Prompts are beginnings, but few sequences cut from long documents begin one.
    """
    if not len(starts):
        return rows
    generator = np.random.default_rng((seed, number, 1))
    for row in np.flatnonzero(generator.random(len(rows)) < share):
        start = generator.choice(starts)
        rows[row] = ids[start : start + rows.shape[1]]
    return rows


def validation_batches(ids: Ids, length: int, batch: int, limit: int | None) -> Iterator[Rows]:
    """The held-back text in consecutive sequences, [<= batch, length + 1]; `limit` sequences spread evenly over it, or all."""
    starts = np.arange(0, len(ids) - length, length)
    if limit is not None and len(starts) > limit:
        starts = starts[np.linspace(0, len(starts) - 1, limit).astype(np.int64)]
    for first in range(0, len(starts), batch):
        yield np.stack([ids[start : start + length + 1].astype(np.int64) for start in starts[first : first + batch]])
