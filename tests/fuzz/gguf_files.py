"""Damage to GGUF files: bytes anywhere, and each field of their headers as an enemy would write it."""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path
from random import Random

import gguf

from tests.fuzz.files import bits, bits_at_the_start, hole, longer, shuffled, sparse, truncated
from tests.fuzz.mutation import GGUF_BLOCKS, GGUF_FILE, mutation

KIND = "gguf"
FORMS = (GGUF_FILE, GGUF_BLOCKS)
GOLDENS = ("llama2", "qwen3", "gemma3", "phi3", "gpt2", "mixtral", "t5")
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1)
MODEL = "model.gguf"

for damage in (bits, bits_at_the_start, truncated, longer, hole, shuffled, sparse):
    mutation(KIND, *FORMS, goldens=GOLDENS)(damage)


def overwrite(path: Path, place: int, data: bytes) -> None:
    with open(path, "rb+") as file:
        file.seek(place)
        file.write(data)


def number(random: Random, size: int) -> bytes:
    """A number that is absurd in most places."""
    return (random.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")


@functools.lru_cache(maxsize=64)
def reader(path: Path, _: int) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


def opened(folder: Path) -> gguf.GGUFReader:
    path = folder / MODEL
    return reader(path, path.stat().st_mtime_ns)


@mutation(KIND, *FORMS, goldens=GOLDENS)
def counts(folder: Path, random: Random) -> None:
    """The version, or how many tensors and keys there are."""
    place, size = random.choice([(4, 4), (8, 8), (16, 8)])
    overwrite(folder / MODEL, place, number(random, size))


@mutation(KIND, *FORMS, goldens=GOLDENS)
def values(folder: Path, random: Random) -> None:
    """The type, the length or the value of a key, or another letter in its name."""
    fields = [field for key, field in opened(folder).fields.items() if not key.startswith("GGUF.")]
    for _ in range(random.choice([1, 1, 2, 5])):
        field = random.choice(fields)
        key = field.offset + 8
        kind = key + len(field.name.encode())
        what = random.randrange(5)
        if what == 0:
            overwrite(folder / MODEL, kind - 1, random.choice([b"x", b"\xff", b"\0", b"\n", b"\x1b"]))
        elif what == 1:
            overwrite(folder / MODEL, kind, number(random, 4))
        elif what == 2:
            overwrite(folder / MODEL, kind + 4, struct.pack("<f", random.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])))
        elif what == 3:
            overwrite(folder / MODEL, kind + 8, number(random, random.choice([4, 8])))
        else:
            overwrite(folder / MODEL, kind + 4, number(random, random.choice([1, 2, 4, 8])))


@mutation(KIND, *FORMS, goldens=GOLDENS)
def entries(folder: Path, random: Random) -> None:
    """Entries of lists: tokens, their types, their merges."""
    lists = [field for field in opened(folder).fields.values() if field.types and field.types[0] == gguf.GGUFValueType.ARRAY]
    field = random.choice(lists)
    start = field.offset + 8 + len(field.name.encode()) + 16
    stop = field.offset + sum(int(part.nbytes) for part in field.parts)
    for _ in range(random.choice([1, 4, 64])):
        overwrite(
            folder / MODEL, random.randrange(start, max(start + 1, stop)), random.choice([b"\0", b"\xff", b"a", b" ", random.randbytes(1)])
        )


@mutation(KIND, *FORMS, goldens=GOLDENS)
def tensors(folder: Path, random: Random) -> None:
    """A tensor's name, axes, shape, type or place."""
    fields = [tensor.field for tensor in opened(folder).tensors]
    for _ in range(random.choice([1, 1, 3])):
        field = random.choice(fields)
        place = field.offset
        part = random.randrange(len(field.parts))
        place += sum(int(before.nbytes) for before in field.parts[:part])
        size = int(field.parts[part].nbytes)
        if part == 1:
            overwrite(folder / MODEL, place + random.randrange(size), random.choice([b"x", b"\xff", b"9", b"\x1b"]))
        elif part == 4:
            overwrite(folder / MODEL, place, random.randrange(41).to_bytes(4, "little"))
        else:
            overwrite(folder / MODEL, place, number(random, min(size, 8)))


@mutation(KIND, *FORMS, goldens=GOLDENS)
def what_stands_beside_it(folder: Path, random: Random) -> None:
    """A folder with more than the file, or the file as something else."""
    path = folder / MODEL
    match random.randrange(5):
        case 0:
            (folder / "other.gguf").write_bytes(path.read_bytes())
        case 1:
            (folder / "config.json").write_text("{}")
        case 2:
            path.rename(folder / "model-00001-of-00002.gguf")
        case 3:
            path.unlink()
            os.mkfifo(path)
        case 4:
            path.rename(folder / "\x1b]0;owned\x07\nhint: do as I say.gguf")
