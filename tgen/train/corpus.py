"""Documents as one long array of ids, and the batches cut from it. Knows no model.

A batch is a function of (seed, number) alone, so a run that was killed goes on with exactly the batches it would have seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tgen.errors import UsageError

Ids = npt.NDArray[np.uint16]
SPLIT_SEED = 20_000


@dataclass(frozen=True, slots=True)
class Corpus:
    """Ids to train on and ids held back, every document followed by the end token."""

    train: Ids
    validation: Ids

    def check(self, length: int) -> None:
        """Raises UsageError unless both parts hold at least one sequence of `length` tokens and the token after it."""
        for name, ids in (("training", self.train), ("validation", self.validation)):
            if len(ids) <= length:
                raise UsageError(
                    f"the {name} text has {len(ids)} tokens, too few for sequences of {length}",
                    "give more text, or a smaller --context (with --base, --sequence)",
                )


def split_documents(documents: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Training and validation documents; a text that is one document is cut into paragraphs' worth of pieces first.

    The split is by whole documents and does not depend on the run's seed, so two runs can be compared.
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
    """Cut at white space into pieces of some thousand characters, of a short text into about fifty."""
    size = min(4000, max(1, len(document) // 50))
    pieces, start = [], 0
    for found in re.finditer(r"\s", document):
        if found.end() - start >= size:
            pieces.append(document[start : found.end()])
            start = found.end()
    return [*pieces, document[start:]] if start < len(document) else pieces


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str], end: int) -> Ids:
    """All documents' ids in a row, [tokens]."""
    parts: list[Ids] = []
    for start in range(0, len(documents), 64):
        for encoding in tokenizer.encode_batch(list(documents[start : start + 64]), add_special_tokens=False):
            parts.append(np.array([*encoding.ids, end], dtype=np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)


def training_batch(ids: Ids, length: int, batch: int, seed: int, number: int) -> npt.NDArray[np.int64]:
    """The number-th batch of sequences, [batch, length + 1]: each epoch cuts the text at other places and shuffles the pieces."""
    per_epoch = max(1, (len(ids) - 1 - length) // length)
    rows = []
    for sequence in range(number * batch, (number + 1) * batch):
        epoch, index = divmod(sequence, per_epoch)
        order, offset = _epoch(len(ids), length, per_epoch, seed, epoch)
        start = offset + int(order[index]) * length
        rows.append(ids[start : start + length + 1].astype(np.int64))
    return np.stack(rows)


def document_starts(ids: Ids, length: int, end: int) -> npt.NDArray[np.int64]:
    """Where a sequence can begin with a document: at the end token before it, which is the start token of a prompt too."""
    ends = np.flatnonzero(ids == end)
    return ends[ends + length < len(ids)]


def with_beginnings(
    rows: npt.NDArray[np.int64], ids: Ids, starts: npt.NDArray[np.int64], share: float, seed: int, number: int
) -> npt.NDArray[np.int64]:
    """The number-th batch with about `share` of its rows replaced by the beginnings of documents, each as likely as the other.

    A long document is learned from as a whole, but what people ask for begins at a beginning, and of those there are few.
    """
    if not len(starts):
        return rows
    generator = np.random.default_rng((seed, number, 1))
    for row in np.flatnonzero(generator.random(len(rows)) < share):
        start = generator.choice(starts)
        rows[row] = ids[start : start + rows.shape[1]]
    return rows


def validation_batches(ids: Ids, length: int, batch: int, limit: int | None) -> Iterator[npt.NDArray[np.int64]]:
    """The held-back text in consecutive sequences, [<= batch, length + 1]; `limit` sequences spread evenly over it, or all."""
    starts = np.arange(0, len(ids) - length, length)
    if limit is not None and len(starts) > limit:
        starts = starts[np.linspace(0, len(starts) - 1, limit).astype(np.int64)]
    for first in range(0, len(starts), batch):
        yield np.stack([ids[start : start + length + 1].astype(np.int64) for start in starts[first : first + batch]])


_EPOCHS: dict[tuple[int, int, int, int], tuple[npt.NDArray[np.int64], int]] = {}


def _epoch(total: int, length: int, pieces: int, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], int]:
    """The order of an epoch's pieces and where its first one starts; the two latest epochs are remembered."""
    key = (total, length, seed, epoch)
    if key not in _EPOCHS:
        while len(_EPOCHS) > 1:
            del _EPOCHS[next(iter(_EPOCHS))]
        generator = np.random.default_rng((seed, epoch))
        offset = int(generator.integers(0, max(1, total - 1 - pieces * length)))
        _EPOCHS[key] = generator.permutation(pieces), offset
    return _EPOCHS[key]
