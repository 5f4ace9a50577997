"""Writes down the calls that an executor makes of the native library, with all memory that they point to, for driver.cpp to repeat."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tgen.arrays import Logits
from tgen.executors.native import interface as c
from tgen.executors.native.panels import matrix_bytes

# Calls whose arguments are numbers (i), things that the library made (h) and memory that it gave (m).
PLAIN = {
    "tgen_model_new": "i",
    "tgen_model_free": "h",
    "tgen_geometry_free": "h",
    "tgen_row_new": "hh",
    "tgen_row_copy": "h",
    "tgen_row_free": "h",
    "tgen_row_truncate": "hi",
    "tgen_row_grow": "hi",
    "tgen_row_reserve": "hi",
    "tgen_memory_new": "i",
    "tgen_memory_free": "m",
}
CONSTANTS = {c.ACTIVATIONS["xielu"]: 3, c.ACTIVATIONS["clamped"]: 2}  # numbers of an activation
MAKERS = ("tgen_model_new", "tgen_row_new", "tgen_row_copy", "tgen_memory_new", "tgen_geometry_new")
Argument = tuple[str, int | None]


class Recorder:
    """Stands in for the library that ctypes loaded; `results` are what its runs gave, with the width of a row in memory.

    Sessions may not be restored.
    """

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        self._library = library
        self._file = path.open("wb")
        self._lock = threading.RLock()  # a row may be freed at any time, in the midst of another call
        self._count = 0
        self._made: dict[int, int] = {}
        self._memories: dict[int, int] = {}
        self._panels: dict[int, int] = {}
        self._programs: dict[int, int] = {}
        self._model: tuple[Any, Any, tuple[Any, Any], int, int, int] | None = None
        self._tables = b""
        self.results: list[tuple[Logits, int]] = []

    def close(self) -> None:
        """After this, every further call is an error."""
        self._file.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._library, name)
        specials: dict[str, Callable[..., Any]] = {
            "tgen_model_set": self._set,
            "tgen_run": self._run,
            "tgen_geometry_new": self._geometry,
            "tgen_pack": self._pack,
        }
        own = specials.get(name)
        if own is None and name not in PLAIN:
            return function  # type: ignore[no-any-return]

        def recorded(*arguments: Any) -> Any:
            with self._lock:
                if own is not None:
                    return own(function, *arguments)
                return self._plain(name, function, arguments)

        return recorded

    def _plain(self, name: str, function: Any, arguments: Sequence[Any]) -> Any:
        if self._file.closed:  # what is freed later does not matter
            return function(*arguments)
        words: list[Argument] = []
        for kind, argument in zip(PLAIN[name], arguments, strict=True):
            if kind == "m":
                words.append(("v", self._memories.pop(_address(argument))))
            else:
                words.append(("i", argument or 0) if kind == "i" or not argument else ("v", self._made[argument]))
        result = function(*arguments)
        number = self._call(name, words, keeps=name in MAKERS)
        if name == "tgen_memory_new":
            self._memories[_address(result)] = number
        elif name in MAKERS:
            self._made[result] = number
        return result

    def _geometry(self, function: Any, number_format: int, layers: int, heads: Any, dims: Any) -> Any:
        words: list[Argument] = [
            ("i", number_format),
            ("i", layers),
            ("v", self._copy(heads, 4 * layers)),
            ("v", self._copy(dims, 4 * layers)),
        ]
        result = function(number_format, layers, heads, dims)
        self._made[result] = self._call("tgen_geometry_new", words, keeps=True)
        return result

    def _pack(self, function: Any, kernel: int, number_format: int, source_format: int, rows: int, columns: int, *rest: Any) -> None:
        source, packed, first, last = rest
        size = rows * columns * (4 if source_format == c.FLOAT32 else 2)
        place = _address(packed)
        if place not in self._panels:
            self._panels[place] = self._memory(bytes(matrix_bytes(number_format, rows, columns)))
        words: list[Argument] = [("k", 0), *(("i", number) for number in (number_format, source_format, rows, columns))]
        words += [("v", self._copy(source, size)), ("v", self._panels[place]), ("i", first), ("i", last)]
        function(kernel, number_format, source_format, rows, columns, *rest)
        self._call("tgen_pack", words)

    def _set(self, function: Any, handle: int, widths: Any, matrices: Any, norms: Any, ropes: Any, distances: Any) -> None:
        copies = [self._memory(bytes(array)) for array in (widths, matrices, norms, ropes, distances)]
        for number, matrix in enumerate(matrices):
            at = number * ctypes.sizeof(c.Matrix)
            self._point(copies[1], at + c.Matrix.data.offset, self._weights(matrix))
            self._point(copies[1], at + c.Matrix.bias.offset, self._copy(matrix.bias, 4 * matrix.rows))
        for number, norm in enumerate(norms):
            at = number * ctypes.sizeof(c.Norm)
            self._point(copies[2], at + c.Norm.weight.offset, self._copy(norm.weight, 4 * norm.width))
            self._point(copies[2], at + c.Norm.bias.offset, self._copy(norm.bias, 4 * norm.width))
        self._call("tgen_model_set", [("v", self._made[handle]), *(("v", number) for number in copies)])
        self._model = widths, matrices, (ropes, distances), copies[3], copies[4], handle
        function(handle, widths, matrices, norms, ropes, distances)

    def _weights(self, matrix: c.Matrix) -> int | None:
        if matrix.data in self._panels:
            return self._panels[matrix.data]
        if matrix.format >= c.INT8:
            size = matrix_bytes(matrix.format, matrix.rows, matrix.columns)
        else:
            size = matrix.rows * matrix.columns * (4 if matrix.format == c.FLOAT32 else 2)
        return self._copy(matrix.data, size)

    def _run(self, function: Any, handle: int, kernel: int, program: c.Program, batch: c.Batch) -> int:
        assert self._model is not None
        widths, matrices, *_ = self._model
        self._write_tables()
        last = program.instructions[program.count - 1]
        vocabulary = matrices[last.matrices[0]].rows if last.target == c.LOGITS else 0
        outputs = int(batch.chosen if vocabulary else batch.tokens)
        stride = int(batch.result_stride)
        copy = self._memory(bytes(batch))
        rows = self._memory(bytes(8 * batch.rows))
        for number, row in enumerate(_numbers(batch.row, np.uintp, batch.rows)):
            self._point(rows, 8 * number, self._made[int(row)])
        result = self._memory(bytes(4 * outputs * stride))
        sizes = {"start": batch.rows + 1, "token_row": batch.tokens, "ids": batch.tokens}
        sizes |= {"vectors": batch.tokens * widths[0], "selected": batch.chosen}
        for name, target in [("row", rows), ("result", result), *((n, self._copy(getattr(batch, n), 4 * s)) for n, s in sizes.items())]:
            self._point(copy, getattr(c.Batch, name).offset, target)
        words: list[Argument] = [("v", self._made[handle]), ("k", 0), ("v", self._program(program)), ("v", copy)]
        failed: int = function(handle, kernel, program, batch)
        self._call("tgen_run", words)
        self._file.write(struct.pack("<cII", b"R", result, 4 * outputs * stride))
        found = _numbers(batch.result, np.float32, outputs * stride).reshape(outputs, stride)
        self.results.append((found[:, : vocabulary or widths[0]].copy(), stride))
        return failed

    def _program(self, program: c.Program) -> int:
        place = ctypes.addressof(program)
        if place not in self._programs:
            assert self._model is not None
            size, heads = ctypes.sizeof(c.Instruction), 0
            code = self._memory(ctypes.string_at(program.instructions, size * program.count))
            for number in range(program.count):
                instruction = program.instructions[number]
                if instruction.kind == c.ATTEND:
                    heads = instruction.heads  # the MULTIPLY after it has these sinks, too
                sizes = {
                    "constant": self._model[0][0] if instruction.kind == c.EMBED else CONSTANTS.get(instruction.activation, 0),
                    "sinks": heads,
                    "correction": instruction.experts,
                }
                for name, numbers in sizes.items():
                    place = number * size + getattr(c.Instruction, name).offset
                    self._point(code, place, self._copy(getattr(instruction, name), 4 * numbers))
            self._programs[place] = self._memory(bytes(program))
            self._point(self._programs[place], c.Program.instructions.offset, code)
        return self._programs[place]

    def _write_tables(self) -> None:
        """Ropes and distances, which grow with the longest text."""
        assert self._model is not None
        _, _, (ropes, distances), ropes_copy, distances_copy, _ = self._model
        now = bytes(ropes) + bytes(distances)
        if now == self._tables:
            return
        self._tables = now
        for copy, array in ((ropes_copy, ropes), (distances_copy, distances)):
            self._file.write(struct.pack("<cII", b"W", copy, len(bytes(array))) + bytes(array))
        for number, rope in enumerate(ropes):
            for field in ("cosine", "sine"):
                at = number * ctypes.sizeof(c.Rope) + getattr(c.Rope, field).offset
                self._point(ropes_copy, at, self._copy(getattr(rope, field), 4 * rope.positions * (rope.dim // 2)))
        for number, table in enumerate(distances):
            at = number * ctypes.sizeof(c.Distances) + c.Distances.table.offset
            self._point(distances_copy, at, self._copy(table.table, 4 * table.heads * 2 * table.reach))

    def _copy(self, address: Any, size: int) -> int | None:
        """The number of a copy of some memory; None of a null pointer."""
        place = _address(address)
        return self._memory(ctypes.string_at(place, size)) if place else None

    def _memory(self, content: bytes) -> int:
        self._file.write(struct.pack("<cQ", b"M", len(content)) + content)
        self._count += 1
        return self._count - 1

    def _point(self, number: int, offset: int, target: int | None) -> None:
        if target is not None:
            self._file.write(struct.pack("<cIII", b"P", number, offset, target))

    def _call(self, name: str, words: Sequence[Argument], keeps: bool = False) -> int:
        head = struct.pack("<cB", b"C", len(name)) + name.encode() + struct.pack("<BB", keeps, len(words))
        # A null pointer is the number 0.
        pairs = [("i", 0) if value is None else (kind, value) for kind, value in words]
        self._file.write(head + b"".join(struct.pack("<cq", kind.encode(), value) for kind, value in pairs))
        self._count += keeps
        return self._count - 1


def _address(pointer: Any) -> int:
    if isinstance(pointer, int) or pointer is None:
        return pointer or 0
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _numbers(address: int, kind: Any, count: int) -> np.ndarray:
    return np.frombuffer(ctypes.string_at(address, count * np.dtype(kind).itemsize), kind)
