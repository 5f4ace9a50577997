"""Damage that the loader may let through to the native executor: sizes, other numbers, other formats, and data at odd places."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.checkpoint.forms import WEIGHTS
from tests.conftest import DECODERS
from tests.fuzz.mutation import SINGLE, edit_json, mutation
from tests.fuzz.weights import Header, edit_header, one, parts, write

KIND = "native"
GOLDENS = tuple(DECODERS)
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I16": 2, "F8_E4M3": 1, "U8": 1}
# Numbers of two and four bytes that are none, or almost none: NaN, infinity, the largest, the least.
BITS = [bytes.fromhex(text) for text in "007c 007e ff7b 0100 807f c07f 7f7f 0000807f 0000c07f ffff7f7f 01000000 0000807f ffffffff".split()]


def command_line(folder: Path, random: Random) -> list[str]:
    """Three tokens from the native executor, in any number format."""
    text = random.choice(["Once upon a time", "a" * 55 + "!", "The cat sat on the 12 mats.", "é"])
    dtype = random.choice(["auto", "float32", "float16", "bfloat16"])
    return ["generate", text, "-n", "3", "--ignore-eos", "--executor", "native", "-t", "2", "--dtype", dtype, "-m", str(folder)]


def nested(values: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where the numbers of a config stand."""
    found = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += nested(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((values, key))
    return found


@mutation(KIND, SINGLE, goldens=GOLDENS)
def config_numbers(folder: Path, random: Random) -> None:
    """Near the number that was there, a multiple of it, or a limit."""

    def change(values: dict[str, Any]) -> None:
        for _ in range(random.choice([1, 1, 2, 4])):
            place, key = random.choice(nested(values))
            old = place[key]
            near = [old + 1, old - 1, -old, 2 * old, old // 2, old * 16, 1, 0, 1024, 1025]
            place[key] = random.choice([*near, 4097, 2**31 - 1, 2**31, 1e-9, 1e30, old + 0.5])

    edit_json(folder / "config.json", change)


@mutation(KIND, SINGLE, goldens=GOLDENS)
def other_shape(folder: Path, random: Random) -> None:
    """Another shape with as many numbers, or with more or fewer and the data to match."""
    header, data = parts(folder / WEIGHTS)
    tensors: Header = json.loads(header)
    entry = one(tensors, random)
    if random.random() < 0.5:
        entry["shape"] = random.choice([entry["shape"][::-1], [1, *entry["shape"]], [*entry["shape"], 1], [_product(entry["shape"])]])
    else:
        row = random.randrange(len(entry["shape"]) or 1)
        entry["shape"] = [max(0, size + random.choice([-1, 1, 7, 16])) if at == row else size for at, size in enumerate(entry["shape"])]
        _lay_out(folder, tensors, data, random)
        return
    write(folder / WEIGHTS, json.dumps(tensors).encode(), data)


@mutation(KIND, SINGLE, goldens=GOLDENS)
def other_format(folder: Path, random: Random) -> None:
    """Some tensors, or all, in another format that the file has the bytes for."""
    header, data = parts(folder / WEIGHTS)
    tensors: Header = json.loads(header)
    names = [name for name in tensors if name != "__metadata__"]
    dtype = random.choice(list(DTYPES))
    for name in random.choice([names, [random.choice(names)], random.sample(names, len(names) // 2)]):
        tensors[name]["dtype"] = dtype
    _lay_out(folder, tensors, data, random)


def _lay_out(folder: Path, tensors: Header, data: bytes, random: Random) -> None:
    """Write tensors with the data that their shapes and formats need: their own as far as it goes, over and over."""
    new = b""
    for entry in (entry for name, entry in tensors.items() if name != "__metadata__"):
        first, last = entry["data_offsets"]
        size = _product(entry["shape"]) * DTYPES.get(entry["dtype"], 4)
        own = data[first:last] or bytes(4)
        entry["data_offsets"] = [len(new), len(new) + size]
        new += (own * (size // len(own) + 1))[:size]
    write(folder / WEIGHTS, json.dumps(tensors).encode() + b" " * random.randrange(9), new)


@mutation(KIND, SINGLE, goldens=GOLDENS)
def odd_places(folder: Path, random: Random) -> bool:
    """Data that starts at any address: nothing is wrong."""
    header, data = parts(folder / WEIGHTS)
    write(folder / WEIGHTS, header + b" " * random.randrange(1, 64), data)
    return False


@mutation(KIND, SINGLE, goldens=GOLDENS)
def other_numbers(folder: Path, random: Random) -> None:
    """Numbers that are none or hardly one, and random bytes."""
    header, data = parts(folder / WEIGHTS)
    changed = bytearray(data)
    for _ in range(random.choice([1, 3, 100])):
        bits = random.choice([*BITS, random.randbytes(random.choice([1, 4, 64]))])
        at = (
            random.randrange(len(changed) - len(bits)) // 4 * 4 + 4 - len(bits)
            if len(bits) < 4
            else random.randrange(len(changed) - 64) // 4 * 4
        )
        changed[max(at, 0) : max(at, 0) + len(bits)] = bits
    write(folder / WEIGHTS, header, bytes(changed))


@mutation(KIND, SINGLE, goldens=GOLDENS)
def cut(folder: Path, random: Random) -> bool:
    """A file that ends too early."""
    path = folder / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[: random.choice([random.randrange(len(content)), len(content) - 1, len(content) - 4])])
    return True


@mutation(KIND, SINGLE, goldens=GOLDENS)
def header_bytes(folder: Path, random: Random) -> None:
    """A few characters of the header."""
    header, data = parts(folder / WEIGHTS)
    changed = bytearray(header)
    for _ in range(random.choice([1, 1, 2, 5])):
        changed[random.randrange(len(changed))] = random.choice(b'0123456789,:"[]{} FB')
    write(folder / WEIGHTS, bytes(changed), data)


@mutation(KIND, SINGLE, goldens=GOLDENS)
def tensor_gone_or_doubled(folder: Path, random: Random) -> None:
    """A tensor under another's name, or gone."""

    def change(header: Header) -> None:
        names = [name for name in header if name != "__metadata__"]
        entry = header.pop(random.choice(names))
        if random.random() < 0.7:
            header[random.choice(names)] = entry

    edit_header(folder / WEIGHTS, change)


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
