"""A model in the library: its matrices, norms, tables and programs, and the runs of these programs."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int32, c_void_p
from itertools import accumulate
from typing import Any

import numpy as np

from tgen.arrays import Logits
from tgen.checkpoint.mapped import Array
from tgen.errors import MemoryLimitError
from tgen.executors.frequencies import Floats
from tgen.executors.native import interface as c
from tgen.executors.native.program import compile_spec
from tgen.executors.native.tables import XIELU, distance_table, rotations, sinusoids, xielu_numbers
from tgen.executors.native.weights import StoredMatrix, Weights, address
from tgen.executors.session import Hidden, Interrupt
from tgen.spec.records import ExpertsSpec, FeedForward, ModelSpec, StackSpec

MOST_TOKENS = 512  # tokens of one run, because the buffers of a run grow with its tokens
FIRST_REACH = 1024  # positions of a table at first; a longer text doubles them
INTERRUPTED = 2  # the code that a run returns if another thread ended it


def freed_with(owner: object, free: Callable[..., object], *arguments: object) -> None:
    """Call `free` when the owner is gone, but not when Python ends, because a thread that still runs the model may need the memory."""
    weakref.finalize(owner, free, *arguments).atexit = False


class CachedRow:
    """A row of the cache at `address` in the library's memory, which is freed with this object."""

    def __init__(self, library: ctypes.CDLL, handle: int | None) -> None:
        if not handle:
            raise MemoryLimitError("memory ran out for the cache of a row", "use a shorter prompt or fewer rows at once")
        self.library = library
        self.address = handle
        freed_with(self, library.tgen_row_free, handle)

    @property
    def length(self) -> int:
        """How many ids the row has read."""
        return int(self.library.tgen_row_length(self.address))

    def copy(self) -> CachedRow:
        """The same row; both share their pages until one of them writes."""
        return CachedRow(self.library, self.library.tgen_row_copy(self.address))

    def truncate(self, length: int) -> None:
        """Forget every id beyond the first `length`."""
        self.library.tgen_row_truncate(self.address, length)


class Cache:
    """The layout of a stack's cache: pages of 16 positions of all layers."""

    def __init__(self, library: ctypes.CDLL, heads: Sequence[tuple[int, int]], number_format: int) -> None:
        """`heads` are (kv_heads, head_dim) of each layer."""
        counts = np.array([pair[0] for pair in heads], np.int32)
        dims = np.array([pair[1] for pair in heads], np.int32)
        self._library = library
        self._geometry = library.tgen_geometry_new(number_format, len(heads), address(counts), address(dims))
        if not self._geometry:
            raise MemoryLimitError("memory ran out for the layout of the cache", "use a smaller model")
        self.page_bytes = int(library.tgen_page_bytes(self._geometry))
        freed_with(self, library.tgen_geometry_free, self._geometry)

    def new_row(self, source: CachedRow | None = None) -> CachedRow:
        """A row that has read nothing."""
        return CachedRow(self._library, self._library.tgen_row_new(self._geometry, source.address if source else None))

    def held_bytes(self, more: int = 0) -> int:
        """Bytes of the memory that all rows take, once they have this many more pages of their own."""
        return int(self._library.tgen_cache_bytes(self._geometry, more))


class _Frame:
    """The arguments of a run, which the next run of the same shape uses again.

    During a step, Python's code and data drop out of the processor's caches, so new arguments would take a twentieth of the time of a small
    model's step.
    """

    def __init__(self, counts: Sequence[int], selected: Sequence[int] | None) -> None:
        self.counts, self.selected = [*counts], None if selected is None else [*selected]
        self.rows = (c_void_p * len(counts))()
        self.ids = (c_int32 * sum(counts))()
        self.batch = c.Batch(
            rows=len(counts),
            tokens=sum(counts),
            chosen=sum(counts) if selected is None else len(selected),
            row=self.rows,
            start=_numbers([0, *accumulate(counts)]),
            token_row=_numbers([number for number, count in enumerate(counts) for _ in range(count)]),
            selected=None if selected is None else _numbers(selected),
        )


class NativeModel:
    """A loaded model. `kernel` is the number of the library's kernel that runs it."""

    def __init__(self, library: ctypes.CDLL, spec: ModelSpec, weights: Weights, handle: int, kernel: int, cache_format: int) -> None:
        self.spec = spec
        self.library = library
        self.kernel = kernel
        self.weights = weights
        self.cache_item_bytes = {c.FLOAT32: 4, c.FLOAT16: 2, c.INT8: 1, **dict.fromkeys(c.HALVES, 2)}[cache_format]
        self._handle = handle
        self._as_llama_cpp = cache_format in c.HALVES
        freed_with(self, library.tgen_model_free, handle)
        for name, stack in spec.stacks.items():
            if stack.positions is not None and stack.positions.kind == "sinusoid":
                table = sinusoids(stack.positions.length, spec.width, to_last=stack.positions.to_last)
                weights.put(f"{name}.positions", StoredMatrix(c.FLOAT32, table.shape[0], table.shape[1], table))
            for number, layer in enumerate(stack.layers):
                if layer.feed_forward is not None:
                    _put_constants(weights, f"{name}.layers.{number}.feed_forward", layer.feed_forward)
        self.programs = compile_spec(
            spec,
            lambda name: weights.matrix(name).rows,
            lambda name: weights.matrix(name).format,
            weights.address,
            rounds_gelu=self._as_llama_cpp,
        )
        self._matrices = (c.Matrix * max(1, len(self.programs.matrices)))(*map(self._matrix, self.programs.matrices))
        self._norms = (c.Norm * max(1, len(self.programs.norms)))(*(self._norm(*norm) for norm in self.programs.norms))
        self._ropes = (c.Rope * max(1, len(self.programs.ropes)))()
        self._distances = (c.Distances * max(1, len(self.programs.distances)))()
        widths = (ctypes.c_int32 * len(self.programs.widths))(*self.programs.widths)
        library.tgen_model_set(handle, widths, self._matrices, self._norms, self._ropes, self._distances)
        self._programs = {name: _program(code) for name, code in self.programs.named.items()}
        lengths = {name: s.positions.length - s.positions.offset for name, s in spec.stacks.items() if s.positions is not None}
        self._reader = next(iter(spec.stacks))
        programs = {"decode": "decoder", "encode": self._reader, "fill": "encoder"}
        self._most_positions = {program: lengths[stack] for program, stack in programs.items() if stack in lengths}
        self._frame: _Frame | None = None
        self._reach = 0
        self._tables: list[Any] = []
        self.caches = {name: Cache(library, heads_of(stack), cache_format) for name, stack in spec.stacks.items()}
        if spec.decoder is not None and spec.encoder is not None:
            crosses = [layer.cross for layer in spec.decoder.layers if layer.cross is not None]
            self.caches["cross"] = Cache(library, [(cross.kv_heads, cross.head_dim) for cross in crosses], cache_format)

    @property
    def threads(self) -> int:
        """The number of threads that run the model."""
        return int(self.library.tgen_model_threads(self._handle))

    def encode(self, texts: Sequence[Sequence[int]]) -> list[Hidden]:
        """The hidden states of each text, [n, width]: the encoder's, or a lone decoder's."""
        hidden: list[Hidden] = []
        for some in _packs(texts):
            rows = [self.caches[self._reader].new_row() for _ in some]
            states = self.run("encode", rows, list(map(len, some)), ids=some)
            hidden += np.split(states, np.cumsum([len(text) for text in some])[:-1])
        return hidden

    def project(self, hidden: Sequence[Hidden]) -> list[CachedRow]:
        """For each text's encoder states [n, width], a row with the keys and values for cross-attention."""
        sources = []
        for states in hidden:
            row = self.caches["cross"].new_row()
            self.run("project", [row], [len(states)], vectors=states)
            self.library.tgen_row_grow(row.address, len(states))
            sources.append(row)
        return sources

    def run(
        self,
        program: str,
        rows: Sequence[CachedRow],
        counts: Sequence[int],
        ids: Sequence[Sequence[int]] | None = None,
        vectors: Hidden | None = None,
        selected: Sequence[int] | None = None,
        interrupt: Interrupt | None = None,
    ) -> Logits:
        """Let row r read counts[r] ids, or as many of the states side by side in `vectors`. They count only after `tgen_row_grow`.

        Returns logits [selected, vocab] if tokens are selected, else hidden states [tokens, width]. Raises ValueError for an id beyond the
        vocabulary or a text longer than the table of positions, InterruptedError if another thread ended the run, MemoryLimitError.
        """
        tokens = sum(counts)
        longest = max(row.length + count for row, count in zip(rows, counts, strict=True))
        if longest > self._most_positions.get(program, longest):
            raise ValueError(f"a text of {longest} ids is longer than the model's table of positions")
        flat = [token for block in ids or () for token in block]
        if ids is not None and not (min(flat) >= 0 and max(flat) < self.spec.vocab):
            raise ValueError("an id lies beyond the vocabulary")
        self._reach_to(longest)
        for row, count in zip(rows, counts, strict=True):
            if self.library.tgen_row_reserve(row.address, count):
                raise _no_memory(tokens)
        vectors = None if vectors is None else np.ascontiguousarray(vectors)
        wide = self.spec.width if selected is None else self.spec.vocab
        stride = -(-wide // c.LANES) * c.LANES
        chosen = tokens if selected is None else len(selected)
        result = np.empty((chosen, stride), np.float32)
        frame = self._framed(rows, counts, selected)
        batch = frame.batch
        batch.ids = None
        if ids is not None:
            frame.ids[:] = [*flat]
            batch.ids = frame.ids
        batch.vectors = None if vectors is None else address(vectors)
        batch.result = ctypes.addressof(c_float.from_buffer(result.data)) if chosen else None  # quicker than NumPy's way
        batch.result_stride = stride
        batch.interrupt = None if interrupt is None else address(interrupt.flag)
        code = self.library.tgen_run(self._handle, self.kernel, self._programs[program], batch)
        if code == INTERRUPTED:
            raise InterruptedError
        if code:
            raise _no_memory(tokens)
        return result if stride == wide else result[:, :wide]

    def run_bytes(self, program: str, rows: Sequence[CachedRow], counts: Sequence[int], selected: Sequence[int] | None = None) -> int:
        """Bytes of all buffers that the model keeps after `run` with these arguments. Nothing runs, and the rows need no pages."""
        batch = self._framed(rows, counts, selected).batch
        return int(self.library.tgen_run_bytes(self._handle, self.kernel, self._programs[program], batch))

    def _framed(self, rows: Sequence[CachedRow], counts: Sequence[int], selected: Sequence[int] | None) -> _Frame:
        """The frame of a run over these rows."""
        frame = self._frame
        if frame is None or frame.counts != counts or frame.selected != selected:
            frame = self._frame = _Frame(counts, selected)
        frame.rows[:] = [row.address for row in rows]
        return frame

    def read(self, memory: Array) -> float:
        """Read whole megabytes of memory as fast as the threads can; returns the largest float32 there, or 0 if none is above it."""
        return float(self.library.tgen_read(self._handle, self.kernel, address(memory), memory.nbytes))

    def _reach_to(self, positions: int) -> None:
        """Make the tables long enough for this many positions."""
        if positions <= self._reach:
            return
        reach = _reach(positions)
        self._tables, self._reach = [], 0  # before the new tables take memory
        tables: list[Any] = []
        for number, rope in enumerate(self.programs.ropes):
            cosine, sine = rotations(rope, reach, self._turns if self._as_llama_cpp else None)
            tables += [cosine, sine]
            self._ropes[number] = c.Rope(rope.dim, reach, address(cosine), address(sine))
        for number, (name, bias) in enumerate(self.programs.distances):
            table = distance_table(bias, self.weights.vector(f"{name}.weight"), reach)
            tables.append(table)
            self._distances[number] = c.Distances(bias.heads, reach, address(table))
        self._tables, self._reach = tables, reach

    def table_bytes(self, positions: int) -> int:
        """Bytes of the tables for so many positions: cosines and sines, and numbers by distance, all in float32."""
        numbers = sum(rope.dim // 2 * 2 for rope in self.programs.ropes) + sum(2 * bias.heads for _, bias in self.programs.distances)
        return 4 * numbers * _reach(positions)

    def _turns(self, angles: Floats) -> tuple[Floats, Floats]:
        """The cosines and sines of angles, computed by the C library."""
        cosines, sines = np.empty_like(angles), np.empty_like(angles)
        self.library.tgen_turns(address(angles), angles.size, address(cosines), address(sines))
        return cosines, sines

    def _matrix(self, name: str) -> c.Matrix:
        stored = self.weights.matrix(name)
        return c.Matrix(stored.format, stored.rows, stored.columns, address(stored.data), self.weights.address(f"{name}.bias") or None)

    def _norm(self, name: str, norm: Any, width: int) -> c.Norm:
        if not norm.weight:
            self.weights.put_vector(f"{name}.weight", np.ones(width, np.float32))
        weight, bias = self.weights.address(f"{name}.weight"), self.weights.address(f"{name}.bias")
        return c.Norm(int(norm.kind == "layer"), width, norm.eps, weight, bias or None)


def _put_constants(weights: Weights, name: str, part: FeedForward) -> None:
    """Put the constants of an activation among the weights, under a name that programs can refer to."""
    mlp = part.expert if isinstance(part, ExpertsSpec) else part
    if mlp.clamp is not None:
        weights.put_vector(f"{name}.clamped", np.array([mlp.clamp.alpha, mlp.clamp.limit], np.float32))
    elif mlp.activation == "xielu":
        weights.put_vector(f"{name}.xielu", xielu_numbers(*(weights.vector(f"{name}.{own}") for own in XIELU)))


def _reach(positions: int) -> int:
    """The positions of a table that has room for this many: tables grow by doubling."""
    reach = FIRST_REACH
    while reach < positions:
        reach *= 2
    return reach


def _numbers(values: Sequence[int]) -> ctypes.Array[c_int32]:
    return (c_int32 * len(values))(*values)


def _program(code: Sequence[c.Instruction]) -> c.Program:
    return c.Program((c.Instruction * len(code))(*code), len(code))


def heads_of(stack: StackSpec) -> list[tuple[int, int]]:
    """The key-value heads of each layer, and their width."""
    return [(attention.kv_heads, attention.head_dim) for attention in stack.attentions]


def _packs(texts: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """The texts in groups whose tokens fit into one run. A text that is longer than that is a group by itself."""
    packs: list[list[Sequence[int]]] = []
    room = 0
    for text in texts:
        if len(text) > room or not packs:
            packs.append([])
            room = MOST_TOKENS
        packs[-1].append(text)
        room -= len(text)
    return packs


def pages_for(positions: int) -> int:
    """The pages of a cache that hold so many positions."""
    return -(-positions // c.LANES)


def _no_memory(tokens: int) -> MemoryLimitError:
    return MemoryLimitError(f"memory ran out while reading {tokens} tokens", "use a shorter prompt or fewer rows at once")
