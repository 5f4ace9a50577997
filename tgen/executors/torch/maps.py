"""Records attention maps by replacing `Attention.attend` for a while, so that the model's own code needs no hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tgen.executors.torch.attention import Attend, Attention, attention_weights
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.positions import Frame
from tgen.executors.torch.transformer import Transformer
from tgen.spec.records import AttentionSpec

Maps = dict[str, list[npt.NDArray[np.float32]]]


@dataclass(slots=True)
class Recorder:
    """The recorded maps: for each kind of attention, one per layer, [rows, heads, queries, keys].

    Kinds are "encoder", "decoder" (masked) and "cross" (from a decoder to its encoder). `whole` is the number of maps of each kind that one
    forward pass makes; a layer that runs several times makes several.
    """

    maps: Maps
    whole: dict[str, int]

    def add(self, kind: str, layer: int, weights: Tensor) -> None:
        """Append a layer's map. The first map of a pass drops those of the pass before."""
        maps = self.maps.setdefault(kind, [])
        if layer == 0 and len(maps) == self.whole[kind]:
            maps.clear()
        maps.append(weights.float().cpu().numpy())


@contextmanager
def recording(model: Transformer) -> Iterator[Recorder]:
    """Record every attention map of the next forward pass; a second pass replaces the maps of the first."""
    stacks = model.spec.stacks
    whole = {name: len(stack.attentions) * stack.rounds for name, stack in stacks.items()}
    recorder = Recorder({}, {**whole, "cross": whole.get("decoder", 0)})
    places: list[tuple[Attention, Attend]] = []
    counts: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            places.append((module, module.attend))
            kind = "cross" if name.endswith("cross") else name.split(".")[0]
            module.attend = _recorded(recorder, kind, counts[kind])
            counts[kind] += 1
    try:
        yield recorder
    finally:
        for module, attend in places:
            module.attend = attend


def _recorded(recorder: Recorder, kind: str, layer: int) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, frame: Frame, spec: AttentionSpec, sinks: Tensor | None) -> Tensor:
        weights = attention_weights(q, k, frame, spec, sinks)
        recorder.add(kind, layer, weights)
        return weights @ v.repeat_interleave(spec.heads // spec.kv_heads, dim=1)

    return attend


@torch.inference_mode()
def attention_maps(model: Transformer, ids: Sequence[int], source: Sequence[int] | None = None) -> Maps:
    """Attention maps of one text, or of an answer to a source: per kind and layer, [heads, queries, keys].

    Keys are tokens only. If queries also see sums of blocks (LongT5), the weights of a query in the map sum to less than 1.
    """
    tokens = torch.tensor([ids], device=model.device)
    with recording(model) as recorder, memory_errors(f"recording attention over {len(ids)} tokens"):
        if source is None:
            model(tokens)
        else:
            model(tokens, source=model.read_source(torch.tensor([source], device=model.device)))
    keys = {kind: len(ids) if source is None or kind == "decoder" else len(source) for kind in recorder.maps}
    return {kind: [layer[0, :, :, : keys[kind]] for layer in layers] for kind, layers in recorder.maps.items()}
