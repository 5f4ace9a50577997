"""One tensor in a file: its type, its shape, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint: its file, the type it is stored in ("F32", "BF16" ...), its shape.

    `start` and `stop` are byte offsets into the file. `strides` count numbers; None means row-major order. A matrix with `packed` is not
    in the file as it is: its numbers in float32 come from the integers and scales there. So do those of a tensor with `blocks`.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    stop: int = 0
    strides: tuple[int, ...] | None = None
    packed: Packed | None = None
    blocks: Blocks | None = None

    @property
    def number_format(self) -> str:
        """The type that holds the numbers as precisely as the file does."""
        if self.blocks is not None:
            return self.blocks.number_format
        return self.dtype if self.packed is None else self.packed.scale.dtype

    @property
    def stored_as(self) -> str:
        """The type that it has in the file, for people."""
        if self.blocks is not None:
            return self.blocks.kind
        return self.dtype if self.packed is None else f"INT{self.packed.bits}"

    @property
    def is_narrow(self) -> bool:
        """Whether its numbers have fewer than 16 bits each."""
        return self.packed is not None or self.blocks is not None

    @property
    def nbytes(self) -> int:
        """How many bytes of the files it takes."""
        return sum(part.stop - part.start for part in self.parts)

    @property
    def parts(self) -> list[StoredTensor]:
        """The tensors that hold it in the files."""
        return [self] if self.packed is None else [self.packed.words, self.packed.scale]


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix [rows, columns] as integers of `bits` bits with one scale for each group of columns of a row.

    `words` are int32 [rows, columns * bits / 32]; the lowest bits of a word are the first of its columns, and each integer is stored as
    an unsigned one: 2^(bits - 1) is added to it. `scale` is [rows, groups].
    """

    bits: int
    words: StoredTensor
    scale: StoredTensor


@dataclass(frozen=True, slots=True)
class Blocks:
    """How GGUF stores a tensor of narrow numbers: rows of blocks, each of `numbers` numbers in `size` bytes.

    `kind` is ggml's name for the type ("Q4_K").
    """

    kind: str
    numbers: int
    size: int

    @property
    def number_format(self) -> str:
        """The type that holds the numbers about as precisely: scales are float16, but in MXFP4 powers of two of bfloat16's range."""
        return "BF16" if self.kind == "MXFP4" else "F16"
