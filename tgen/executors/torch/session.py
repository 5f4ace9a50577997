"""Implements the engine's protocols with torch: sessions take ids and return logits as NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tgen.executors.formats import available_memory
from tgen.executors.session import selected
from tgen.executors.torch import reading
from tgen.executors.torch.cache import Row
from tgen.executors.torch.decode.captured import StaticDecoder, supports
from tgen.executors.torch.decode.static_cache import fitting
from tgen.executors.torch.placement import memory_errors
from tgen.executors.torch.transformer import Transformer
from tgen.spec.cache import STATES, row_numbers, state_numbers

FLOAT32_BYTES = 4


class TorchExecutor:
    """A loaded model that opens sessions. It is not exact: torch chooses kernels by shape, and their sums differ in the last bits."""

    exact = False

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self._decoder = StaticDecoder(model, capture=True) if model.device.type == "cuda" and supports(model.spec) else None

    def open(self) -> TorchSession:
        """A session without rows."""
        return TorchSession(self.model, self._decoder)

    def row_bytes(self, tokens: int, source_tokens: int = 0) -> int:
        """Bytes of cache that a row takes for `tokens` ids and for a source of `source_tokens` ids."""
        spec = self.model.spec
        tokens = tokens if self._decoder is None else fitting(tokens)
        return row_numbers(spec, tokens, source_tokens) * self.model.dtype.itemsize + STATES * state_numbers(spec) * FLOAT32_BYTES

    def free_bytes(self) -> int | None:
        """Bytes of memory that caches may still take; None if the system does not say."""
        if self.model.device.type == "cuda":
            return torch.cuda.mem_get_info(self.model.device)[0]
        return available_memory()

    def encode(self, texts: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """The hidden states of each text, [n, width]: the encoder's, or a lone decoder's."""
        return reading.encode(self.model, texts)

    def masked_logits(self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Logits at some positions of each text, text after text: [all places, vocab]."""
        return reading.masked_logits(self.model, texts, places)

    def step_bytes(self, length: int) -> int:
        """Bytes that a decode step of one row reads after `length` ids: weights and cache."""
        return reading.step_bytes(self.model, length)

    def reader(self, size: int) -> Callable[[], object]:
        """What reads `size` bytes of memory of its own on the model's device, as fast as torch can."""
        memory = torch.ones(size // FLOAT32_BYTES, device=self.model.device)
        return lambda: memory.max().item()

    def describe(self) -> str:
        """Executor, device, number format, threads, and whether decode steps are recorded as graphs, for people."""
        recorded = self._decoder is not None and not self._decoder.failed
        return reading.describe(self.model) + (", decode steps as graphs" if recorded else "")


class TorchSession:
    """Rows of ids and their caches; copies of a row share its encoded source."""

    def __init__(self, model: Transformer, decoder: StaticDecoder | None = None) -> None:
        """`decoder`, if there is one, computes the steps in which every row reads one id."""
        self._model = model
        self._decoder = decoder
        self._rows: list[Row] = []

    @property
    def cache_bytes(self) -> int:
        """The memory that all caches take; a source that rows share counts once."""
        sources = {id(row.source): row.source.bytes for row in self._rows if row.source is not None}
        return sum(row.bytes for row in self._rows) + sum(sources.values())

    @torch.inference_mode()
    def admit(self, sources: Sequence[Sequence[int] | None]) -> None:
        """Append one row for each source; texts for the encoder are read together."""
        texts = [source for source in sources if source is not None]
        if not all(texts):
            raise ValueError("a source text needs at least one id")
        with memory_errors(f"reading {sum(map(len, texts))} tokens"):
            read = iter(self._model.read_sources(texts) if texts else [])
            self._rows += [self._model.open_row(None if source is None else next(read)) for source in sources]

    @torch.inference_mode()
    def extend(self, rows: Sequence[Sequence[int]], tails: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """Read more ids, row by row; returns logits [sum(tails), vocab] of each row's last `tails[r]` positions."""
        if len(rows) != len(self._rows) or not rows or not all(rows):
            raise ValueError(f"expected at least one id for each of {len(self._rows)} rows")
        tails = [1] * len(rows) if tails is None else tails
        if len(tails) != len(rows) or any(not 0 <= tail <= len(ids) for tail, ids in zip(tails, rows, strict=True)):
            raise ValueError("expected a tail for each row, from 0 to its number of ids")
        with memory_errors(f"reading {sum(map(len, rows))} tokens"):
            logits = self._logits(rows, tails).float().cpu().numpy()
        for row, ids in zip(self._rows, rows, strict=True):
            row.length += len(ids)
        return logits

    def _logits(self, rows: Sequence[Sequence[int]], tails: Sequence[int]) -> torch.Tensor:
        """The logits of `extend`, [sum(tails), vocab]."""
        if self._decoder is not None and all(len(ids) == tail == 1 for ids, tail in zip(rows, tails, strict=True)):
            found = self._decoder.logits(self._rows, [ids[0] for ids in rows])
            if found is not None:
                return found
        hidden = self._model.read(self._rows, rows)
        stops = accumulate(map(len, rows))
        last = [place for stop, tail in zip(stops, tails, strict=True) for place in range(stop - tail, stop)]
        return self._model.logits(hidden if len(last) == len(hidden) else hidden[last])

    @torch.inference_mode()
    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows. Only a row that is repeated is copied."""
        with memory_errors(f"copying the cache for {len(rows)} rows"):
            self._rows = selected(self._rows, rows)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Let row r forget every id beyond its first lengths[r]. Raises ValueError for a length that is not `reachable`."""
        wanted = [min(row.length, length) for row, length in zip(self._rows, lengths, strict=True)]
        for row, length in zip(self._rows, wanted, strict=True):
            if row.reachable(length) != length:
                raise ValueError(f"the cache cannot be cut back to {length} ids")
        for row, length in zip(self._rows, wanted, strict=True):
            row.length = length

    def reachable(self, row: int, length: int) -> int:
        """The largest length up to this one that a row can be cut back to; a mixer with a state keeps only some lengths."""
        return self._rows[row].reachable(length)

    @torch.inference_mode()
    def mark(self, row: int) -> None:
        """Make sure that a row can later be cut back to the ids that it has read; only the last two marks are kept."""
        self._rows[row].mark()

    def split(self, row: int) -> TorchSession:
        """A new session with this row. Both sessions share the row's cache, so only one of them may extend it."""
        other = TorchSession(self._model, self._decoder)
        other._rows = [self._rows[row]]
        return other

    def join(self, other: TorchSession) -> None:
        """Append all rows of another session of the same model, which is empty afterwards."""
        self._rows += other._rows
        other._rows = []

    @torch.inference_mode()
    def state(self, length: int) -> dict[str, npt.NDArray[Any]]:
        """The caches of the first row's mixers for its first `length` ids. NumPy lacks bfloat16, so uint16 arrays hold such numbers."""
        layers = self._rows[0].layers
        return {
            f"{number}.{place}": _array(tensor) for number, layer in enumerate(layers) for place, tensor in enumerate(layer.state(length))
        }

    @torch.inference_mode()
    def restore(self, length: int, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append a row that has read `length` ids. Raises ValueError for a state that does not fit the length or the model."""
        with memory_errors(f"restoring {length} tokens"):
            row = self._model.open_row()
            # Check the shapes first, so that a wrong length in a file cannot allocate memory.
            layouts = [layer.layout(length) for layer in row.layers]
            wanted = {f"{number}.{place}": one for number, layout in enumerate(layouts) for place, one in enumerate(layout)}
            if not length or {name: (array.dtype, array.shape) for name, array in state.items()} != _stored(wanted):
                raise ValueError("the state is that of another model or number format")
            for number, (layer, layout) in enumerate(zip(row.layers, layouts, strict=True)):
                parts = [_tensor(state[f"{number}.{place}"], dtype, self._model.device) for place, (dtype, _) in enumerate(layout)]
                layer.restore(length, parts)
            row.length = length
        self._rows.append(row)


def _stored(layouts: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Number formats and shapes of tensors as `_array` returns them."""
    return {name: (_array(torch.empty(0, dtype=dtype)).dtype, shape) for name, (dtype, shape) in layouts.items()}


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A tensor as a NumPy array with the same bits; bfloat16 becomes uint16."""
    array: npt.NDArray[Any] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).contiguous().cpu().numpy()
    return array


def _tensor(array: npt.NDArray[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The inverse of `_array`."""
    tensor = torch.from_numpy(array)
    return (tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor).to(device)
