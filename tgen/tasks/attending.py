"""Makes heat maps of the attention in one text, of one layer and head or of all, with the tokens as labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.generation import read_generation
from tgen.errors import CapacityError, UsageError
from tgen.options import AttentionKind as Kind
from tgen.text.tokenizer import Tokenizer
from tgen.ui.heatmap import HeatMap

if TYPE_CHECKING:
    from tgen.executors.torch.maps import Maps
    from tgen.executors.torch.transformer import Transformer

# The kinds of attention in each kind of model; the first one is the default.
KINDS: dict[str, tuple[Kind, ...]] = {
    "decoder-only": ("decoder",),
    "encoder-only": ("encoder",),
    "encoder-decoder": ("cross", "encoder", "decoder"),
}


@dataclass(frozen=True, slots=True)
class Attending:
    """All maps of a text, and the labels of its tokens.

    `written` are the labels of the tokens that the decoder of an encoder-decoder reads; None for other models.
    """

    maps: Maps
    source: Sequence[str]
    written: Sequence[str] | None = None

    def tokens(self, kind: Kind) -> tuple[Sequence[str], Sequence[str]]:
        """The labels of a map's queries and of its keys."""
        if self.written is None:
            return self.source, self.source
        return (self.source if kind == "encoder" else self.written), (self.written if kind == "decoder" else self.source)

    def selected(self, kind: Kind, layer: int, head: int | None) -> HeatMap:
        """One map; if `head` is None, the mean of all heads. Raises UsageError for a layer or a head that the model does not have."""
        weights, number = self._layer(kind, layer)
        if head is None:
            return HeatMap(f"{kind}, layer {number}, mean of {len(weights)} heads", weights.mean(axis=0), *self.tokens(kind))
        if not -len(weights) <= head < len(weights):
            raise UsageError(f"--head {head}: there are {len(weights)} heads", f"give 0 to {len(weights) - 1}, or -1 for the last")
        return HeatMap(f"{kind}, layer {number}, head {head % len(weights)}", weights[head], *self.tokens(kind))

    def every_head(self, kind: Kind, layer: int) -> list[HeatMap]:
        """The map of each head of a layer. Raises UsageError."""
        weights, number = self._layer(kind, layer)
        return [HeatMap(f"{kind} {number}.{head}", one, *self.tokens(kind)) for head, one in enumerate(weights)]

    def size(self, kind: Kind) -> tuple[int, int]:
        """The number of layers of a kind, and the number of heads in its last layer."""
        return len(self.maps[kind]), len(self.maps[kind][-1])

    def _layer(self, kind: Kind, layer: int) -> tuple[npt.NDArray[np.float32], int]:
        """A layer's maps [heads, queries, keys], and its number."""
        layers = self.maps[kind]
        if not -len(layers) <= layer < len(layers):
            raise UsageError(f"--layer {layer}: there are {len(layers)} layers", f"give 0 to {len(layers) - 1}, or -1 for the last")
        return layers[layer], layer % len(layers)


def checked_kind(checkpoint: Checkpoint, kind: Kind | None, *, answered: bool) -> Kind:
    """The kind of attention to show. Raises UsageError for a kind that the model lacks, and for an answer if the model reads none."""
    kinds = KINDS[checkpoint.spec.kind]
    if not any(stack.attentions for stack in checkpoint.spec.stacks.values()):
        raise UsageError(f"{checkpoint.name} has no attention: its layers carry a state from token to token", "use tgen explain")
    if kind is not None and kind not in kinds:
        raise UsageError(f"--kind {kind}: {checkpoint.name} is {checkpoint.spec.kind}", f"use --kind {' or '.join(kinds)}")
    if answered and checkpoint.spec.kind != "encoder-decoder":
        raise UsageError(f"--answer is for encoder-decoders; {checkpoint.name} is {checkpoint.spec.kind}", "leave it out")
    return kind or kinds[0]


def check_length(checkpoint: Checkpoint, what: str, count: int) -> None:
    """Raise UsageError for no tokens, CapacityError for more than the model reads."""
    context = checkpoint.spec.context
    if not count:
        raise UsageError(f"the {what} is empty", "give some text to look at")
    if count > context:
        raise CapacityError(f"the {what} has {count} tokens, the model's context is {context}", "shorten it")


def attend(checkpoint: Checkpoint, tokenizer: Tokenizer, model: Transformer, ids: Sequence[int], answer: Sequence[int]) -> Attending:
    """The maps of a text. For an encoder-decoder, they are those of a text and an answer, which follows the decoder's start token.

    Raises CapacityError, MemoryLimitError.
    """
    from tgen.executors.torch.maps import attention_maps

    def labels(tokens: Sequence[int]) -> list[str]:
        return [tokenizer.decode([token], special=True) for token in tokens]

    if checkpoint.spec.kind != "encoder-decoder":
        return Attending(attention_maps(model, ids), labels(ids))
    written = [read_generation(checkpoint).decoder_start or 0, *answer]
    check_length(checkpoint, "answer", len(written))
    return Attending(attention_maps(model, written, source=ids), labels(ids), labels(written))
