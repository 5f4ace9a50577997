"""Runs decode steps on static buffers: a GPU records each kind of step once as a graph, and then launches it as a whole.

A step of a small model is some hundreds of kernels, and each is shorter than the time that Python takes to launch it. A graph launches all
of them at once. It is bound to its buffers, so there is one graph for each number of slots and each capacity.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tgen.executors.torch.cache import Row
from tgen.executors.torch.decode.static_cache import StaticCache, fitting
from tgen.executors.torch.transformer import Transformer
from tgen.spec.records import AttentionSpec, MlpSpec, ModelSpec
from tgen.ui import messages

# The number of kinds of step that are kept with their buffers.
KEPT = 4
# Runs before a recording: libraries choose kernels and allocate memory in the first ones, which a recording does not allow.
WARM_UPS = 3


def supports(spec: ModelSpec) -> bool:
    """Whether the model is a lone decoder of attention and plain feed-forward parts with a head.

    A mixture of experts decides by its numbers what to run, which a recording cannot do. Mixers that carry a state, and cross-attention,
    have caches of other kinds.
    """
    if spec.decoder is None or spec.encoder is not None or spec.head is None:
        return False
    return all(
        all(isinstance(mixer, AttentionSpec) for mixer in layer.mixers) and isinstance(layer.feed_forward, MlpSpec | None)
        for layer in spec.decoder.layers
    )


class StaticDecoder:
    """Reads one more id of each of some rows. Sessions of one model share it; a row may move between it and any other pass."""

    def __init__(self, model: Transformer, *, capture: bool) -> None:
        """Without `capture`, the same steps run without a recording, on any device."""
        self._model = model
        self._capture = capture
        self._steps: dict[tuple[int, int], _Step] = {}
        self.failed = False

    def logits(self, rows: Sequence[Row], ids: Sequence[int]) -> Tensor | None:
        """Logits [rows, vocab] after one more id of each row; None if no step can be recorded. The caller must change the rows' lengths."""
        while not self.failed:
            others = len(self._steps) > 1
            try:
                return self._step(rows).run(rows, ids)
            except RuntimeError as error:  # out of memory, or an operation that cannot be recorded
                self._clear(0)
                if not self._capture:
                    raise
                if others and isinstance(error, torch.OutOfMemoryError):
                    continue  # without the buffers of other steps, the memory may suffice
                self.failed = True
                messages.note(f"decode steps run without a recorded graph, so more slowly: {str(error).splitlines()[0]}")
        return None

    def _step(self, rows: Sequence[Row]) -> _Step:
        key = 1 << (len(rows) - 1).bit_length(), fitting(max(row.length for row in rows) + 1)
        step = self._steps.pop(key, None)
        if step is None:
            self._clear(KEPT - 1)
            step = _Step(self._model, rows[0], *key, capture=self._capture)
        self._steps[key] = step  # in the order of use
        return step

    def _clear(self, left: int) -> None:
        """Drop the steps that were used longest ago, so that `left` remain."""
        for key in list(self._steps)[: max(0, len(self._steps) - left)]:
            self._steps.pop(key).cache.clear()


class _Step:
    """A step for a number of slots and a capacity: its buffers for ids, positions, keys and values, and its graph."""

    def __init__(self, model: Transformer, like: Row, slots: int, capacity: int, *, capture: bool) -> None:
        self._model = model
        self._capture = capture
        self.cache = StaticCache(like, slots, capacity)
        self._inputs = torch.zeros(2, slots, 1, dtype=torch.long, device=model.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output = torch.empty(0)

    def run(self, rows: Sequence[Row], ids: Sequence[int]) -> Tensor:
        """The logits of `StaticDecoder.logits`."""
        slots = self.cache.seat(rows)
        inputs = torch.zeros(self._inputs.shape, dtype=torch.long)
        inputs[0, slots, 0] = torch.tensor(list(ids))
        inputs[1, slots, 0] = torch.tensor([row.length for row in rows])
        self._inputs.copy_(inputs)
        if self._capture and self._graph is None:
            self._graph = self._recorded()
        if self._graph is None:
            self._output = self._compute()
        else:
            self._graph.replay()
        return self._output[: len(rows)] if slots == list(range(len(rows))) else self._output[slots]

    def _compute(self) -> Tensor:
        """Logits [slots, vocab] of the inputs. A slot without a row reads token 0 at position 0."""
        ids, positions = self._inputs
        hidden = self._model.step(ids, positions, self.cache.capacity, lambda layer, kv: self.cache.write(layer, positions, kv))
        return self._model.logits(hidden)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """The graph of `_compute`. When it runs, it writes the logits to `_output`."""
        device = self._model.device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._compute()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._output = self._compute()
        return graph
