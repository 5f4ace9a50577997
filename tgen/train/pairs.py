"""Learning to translate: sentence pairs in batches of similar length, each target token predicted from the source and those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tgen.errors import UsageError
from tgen.executors.torch.transformer import Transformer
from tgen.train.objective import SPLIT_SEED, Arrays, HeldBack, Ids
from tgen.train.settings import TrainSettings
from tgen.train.vocabulary import end_token

# Pairs are sorted by length within pools of this many batches: batches need little padding, and still mix.
POOL = 50
PADDING = -1


@dataclass(frozen=True, slots=True)
class Side:
    """The sentences of one language in one row: sentence i is ids[starts[i] : starts[i + 1]]."""

    ids: Ids
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> Ids:
        """The ids of a sentence."""
        found: Ids = self.ids[self.starts[index] : self.starts[index + 1]]
        return found

    def lengths(self) -> npt.NDArray[np.int64]:
        """How many ids each sentence has."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class PairCorpus:
    """Sources and targets of the pairs to learn from and of those held back, and how many bytes of text each held-back target is."""

    source: Side
    target: Side
    held_source: Side
    held_target: Side
    held_bytes: npt.NDArray[np.int64]


def split_pairs(pairs: Sequence[tuple[str, str]], share: float) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to learn from and pairs held back, by source sentence: no held-back source is ever learned from."""
    sources = sorted({source for source, _ in pairs})
    count = math.ceil(share * len(sources))
    held = {sources[i] for i in np.random.default_rng(SPLIT_SEED).permutation(len(sources))[:count]}
    return [pair for pair in pairs if pair[0] not in held], [pair for pair in pairs if pair[0] in held]


def encode_pairs(
    tokenizer: Tokenizer, train: Sequence[tuple[str, str]], held: Sequence[tuple[str, str]], context: int
) -> tuple[PairCorpus, int]:
    """The ids of all pairs, and the number of pairs that are left out because they are too long for the context.

    Raises UsageError if no pairs remain.
    """
    (source, target, _), dropped = _encode(tokenizer, train, context)
    (held_source, held_target, sizes), more = _encode(tokenizer, held, context)
    if not len(source) or not len(held_source):
        raise UsageError("too few pairs to learn from and to hold back", "give more pairs, or a larger --context")
    return PairCorpus(source, target, held_source, held_target, sizes), dropped + more


class PairObjective:
    """The target sentence of a pair, for a model in Marian layout."""

    model_type = "marian"

    def __init__(self, settings: TrainSettings, corpus: PairCorpus, tokenizer: Tokenizer) -> None:
        self.end = end_token(tokenizer)
        self.settings = settings
        self.corpus = corpus
        self.config: dict[str, Any] = settings.pairs_config(tokenizer.get_vocab_size(), self.end)
        keys = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        self.generation: dict[str, Any] = {"num_beams": 4, "max_length": settings.context, "early_stopping": True}
        self.generation |= {key: self.config[key] for key in keys}
        self._tokenizer = tokenizer
        self._batches = max(1, len(corpus.source) // settings.batch)  # in an epoch
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)  # sorting many pairs takes longer than a step

    def batch(self, number: int) -> Arrays:
        """Source ids and positions, and targets, each [batch, n] and padded with -1."""
        epoch, place = divmod(number, self._batches)
        return self._arrays(self.corpus.source, self.corpus.target, self._epoch(epoch)[place])

    def losses(self, model: Transformer, *arrays: Tensor) -> Tensor:
        """The losses [batch, n]. Labels are smoothed (arXiv:1512.00567) in training, but not when gradients are off."""
        ids, positions, target = arrays
        source = model.read_source(ids, positions)
        hidden = model(target[:, :-1].clamp(min=0), source=source)
        labels = target[:, 1:]
        smoothing = self.settings.label_smoothing if torch.is_grad_enabled() else 0.0
        logits = model.logits(hidden).float().flatten(0, 1)
        losses = F.cross_entropy(logits, labels.flatten(), ignore_index=PADDING, reduction="none", label_smoothing=smoothing)
        return losses.view(labels.shape)

    def held_back(self, limit: int | None) -> Iterator[HeldBack]:
        """Held-back pairs in batches of similar length."""
        corpus = self.corpus
        chosen = np.arange(len(corpus.held_source))
        if limit is not None and len(chosen) > limit:
            chosen = chosen[np.linspace(0, len(chosen) - 1, limit).astype(np.int64)]
        chosen = chosen[np.argsort(corpus.held_target.lengths()[chosen], kind="stable")]
        for first in range(0, len(chosen), self.settings.batch):
            rows = chosen[first : first + self.settings.batch]
            yield HeldBack(self._arrays(corpus.held_source, corpus.held_target, rows), len(rows), int(corpus.held_bytes[rows].sum()))

    def opening(self) -> str:
        """The first held-back source sentence."""
        return str(self._tokenizer.decode(self.corpus.held_source.row(0).tolist()))

    def describe(self) -> str:
        """The numbers of pairs."""
        return f"{len(self.corpus.source):,} pairs to learn from, {len(self.corpus.held_source):,} held back"

    def _make_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """The pairs of each batch of an epoch, [batches, batch]: shuffled, sorted by length within pools, the batches shuffled again."""
        batches = self._batches
        generator = np.random.default_rng((self.settings.seed, epoch))
        size = min(self.settings.batch, len(self.corpus.source))
        order = generator.permutation(len(self.corpus.source))[: batches * size]
        lengths = self.corpus.target.lengths() + self.corpus.source.lengths()
        for first in range(0, len(order), POOL * size):
            pool = order[first : first + POOL * size]
            order[first : first + POOL * size] = pool[np.argsort(lengths[pool], kind="stable")]
        return order.reshape(batches, size)[generator.permutation(batches)]

    def _arrays(self, source: Side, target: Side, rows: npt.NDArray[np.int64]) -> Arrays:
        sources = [source.row(int(i)) for i in rows]
        targets = [target.row(int(i)) for i in rows]
        ids = np.zeros((len(rows), max(map(len, sources))), dtype=np.int64)
        positions = np.full(ids.shape, PADDING, dtype=np.int64)
        labels = np.full((len(rows), 1 + max(map(len, targets))), PADDING, dtype=np.int64)
        labels[:, 0] = self.config["decoder_start_token_id"]
        for row, (one, other) in enumerate(zip(sources, targets, strict=True)):
            ids[row, : len(one)], positions[row, : len(one)] = one, np.arange(len(one))
            labels[row, 1 : 1 + len(other)] = other
        return ids, positions, labels


def _encode(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], context: int) -> tuple[tuple[Side, Side, npt.NDArray[np.int64]], int]:
    encoded = [tokenizer.encode_batch([pair[side] for pair in pairs]) for side in (0, 1)]
    rows = [(a.ids, b.ids, len(pair[1].encode())) for a, b, pair in zip(*encoded, pairs, strict=True)]
    kept = [row for row in rows if max(len(row[0]), len(row[1])) < context]
    sizes = np.array([row[2] for row in kept], dtype=np.int64)
    return (_side([row[0] for row in kept]), _side([row[1] for row in kept]), sizes), len(rows) - len(kept)


def _side(rows: Sequence[Sequence[int]]) -> Side:
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return Side(np.array([i for row in rows for i in row], dtype=np.uint16), starts)
