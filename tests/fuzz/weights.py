"""Safetensors headers and indices as an enemy would write them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.checkpoint.forms import WEIGHTS
from tests.fuzz.mutation import BIN_INDEX, BIN_SHARDS, INDEX, SHARDS, SINGLE, edit_json, mutation, weight_files
from tests.fuzz.values import VALUES

Header = dict[str, Any]
DTYPES: list[Any] = ["F64", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4", "X", "", "f32", None, 7, []]


def edit_header(path: Path, change: Callable[[Header], object]) -> None:
    """Change the header of a safetensors file by hand, for what the library would not write."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    write(path, json.dumps(header).encode("utf-8", "surrogatepass"), content[8 + length :])


def write(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def parts(path: Path) -> tuple[bytes, bytes]:
    """Header and data."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length], content[8 + length :]


@mutation("headers", SINGLE, SHARDS)
def offsets(folder: Path, random: Random) -> bool:
    """Swapped, overlapping, outside, negative, absurd."""

    def change(header: Header) -> None:
        names = [name for name in header if name != "__metadata__"]
        one = header[random.choice(names)]
        start, stop = one["data_offsets"]
        other = header[random.choice(names)]["data_offsets"]
        one["data_offsets"] = random.choice(
            [
                [stop + 4, start],
                [start + 4, stop + 4],
                [start - 4, stop],
                [-start - 4, -stop - 4],
                [start, 2**63],
                [2**64 - 4, 2**64],
                [0, 2**70],
                [start, stop, stop],
                [],
                [start],
                None,
                "0",
                [str(start), str(stop)],
                [start + 0.5, stop + 0.5],
                [None, None],
                [start, stop + 10**12],
                [other[0] + 4, other[1] + 4],
                [True, False],
                {"0": start, "1": stop},
            ]
        )

    edit_header(random.choice(weight_files(folder)), change)
    return True


@mutation("headers", SINGLE, SHARDS)
def exchanged(folder: Path, random: Random) -> None:
    """Two tensors' places; where they are of one size it cannot be seen."""

    def change(header: Header) -> None:
        one, other = (header[random.choice([name for name in header if name != "__metadata__"])] for _ in range(2))
        one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]

    edit_header(random.choice(weight_files(folder)), change)


@mutation("headers", SINGLE, SHARDS)
def types(folder: Path, random: Random) -> None:
    """Other types; where they are of one size it cannot be seen."""
    edit_header(random.choice(weight_files(folder)), lambda header: one(header, random).update(dtype=random.choice(DTYPES)))


@mutation("headers", SINGLE, SHARDS)
def shapes(folder: Path, random: Random) -> None:
    def change(header: Header) -> None:
        entry = one(header, random)
        shape = entry["shape"]
        entry["shape"] = random.choice(
            [
                shape[::-1],
                [*shape, 1],
                [1, *shape],
                [],
                [0],
                [2**32, 2**32],
                [2**63, 2],
                [2**64],
                [-1, *shape[1:]],
                [0, 2**63],
                [1] * 100 + shape,
                [1] * 100_000 + shape,
                None,
                "2",
                [None],
                [1.5],
                [str(n) for n in shape],
                {},
                [[n] for n in shape],
            ]
        )

    edit_header(random.choice(weight_files(folder)), change)


def one(header: Header, random: Random) -> dict[str, Any]:
    entry: dict[str, Any] = header[random.choice([name for name in header if name != "__metadata__"])]
    return entry


@mutation("headers", SINGLE, SHARDS)
def names(folder: Path, random: Random) -> bool:
    """A tensor under a name that the model has no place for, which ends up in a message."""
    new = random.choice(["", "a" * 10_000, "\x1b]0;owned\x07", "error: no\nhint: yes", "\0", "é" * 400, "../../x", "__metadata__"])

    def change(header: Header) -> None:
        header[new] = header.pop(random.choice([name for name in header if name != "__metadata__"]))

    edit_header(random.choice(weight_files(folder)), change)
    return True


@mutation("headers", SINGLE, SHARDS)
def header_length(folder: Path, random: Random) -> bool:
    path = random.choice(weight_files(folder))
    header, data = parts(path)
    length = random.choice([0, 1, 7, len(header) - 1, len(header) + 1, len(header) + len(data) + 1, 10**8, 10**8 + 1, 2**63, 2**64 - 1])
    path.write_bytes(struct.pack("<Q", length) + header + data)
    return True


@mutation("headers", SINGLE, SHARDS)
def header_text(folder: Path, random: Random) -> None:
    path = random.choice(weight_files(folder))
    header, data = parts(path)
    first = json.dumps(next(iter(json.loads(header).items())))
    middle = b", " + first[1:-1].replace(", {", ": {", 1).encode()
    header = random.choice(
        [
            b"[" * 90_000,
            b'{"a":' * 90_000,
            b"{}",
            b"[]",
            b"null",
            b"",
            b"\xff" * 20,
            b"\xef\xbb\xbf" + header,
            header + b" " * 1000,
            header[:-1] + middle + b"}",
            header + b"x",
            header.replace(b'"F32"', b'"F32", "x": 1'),
            header.decode().encode("utf-16"),
            b'{"__metadata__": {"a": 1}, ' + header[1:],
            b'{"__metadata__": {"a": "b"}, ' + header[1:],
            b'{"\\ud800": ' + header[1:],
            b'{"__metadata__": ' + b"[" * 90_000 + b", " + header[1:],
            header[:-1] + b', "x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
        ]
    )
    write(path, header, data)


@mutation("headers", SINGLE, heavy=True)
def many_tensors(folder: Path, random: Random) -> bool:
    """A header as large as the format allows, full of tensors without numbers."""
    count = random.choice([1000, 100_000, 1_000_000])
    path = folder / WEIGHTS
    header, data = parts(path)
    end = len(data)
    more = ", ".join(f'"{number}": {{"dtype":"F32","shape":[0],"data_offsets":[{end},{end}]}}' for number in range(count))
    write(path, header.rstrip()[:-1] + b", " + more.encode() + b"}", data)
    return True


NAMES: list[Any] = [
    "../secret.safetensors",
    "/dev/zero",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\\..\\b",
    "\0",
    "x\0y",
    "~/x",
    "C:\\x",
    "a" * 300,
    "missing.safetensors",
    "config.json",
    "tokenizer.json",
    "\ud800",
    "\x1b]0;owned\x07",
    "model.safetensors.index.json",
    "part-0.safetensors/",
    "./part-0.safetensors",
    "part-0.bin/../part-0.bin",
    None,
    7,
    [],
    {},
    True,
    1e400,
]


@mutation("indices", SHARDS, BIN_SHARDS)
def leads_elsewhere(folder: Path, random: Random) -> bool:
    """A shard's name that is no file of the folder; a whole shard lies outside to be found."""
    (folder.parent / "secret.safetensors").write_bytes(weight_files(folder)[0].read_bytes())

    def change(index: dict[str, Any]) -> None:
        names = index["weight_map"]
        new, old = random.choice(NAMES), random.choice(list(names.values()))
        for name in [name for name, file in names.items() if file == old][: random.choice([1, 1000])]:
            names[name] = new

    edit_json(index_of(folder), change)
    return True


@mutation("indices", SHARDS, BIN_SHARDS)
def wrong_map(folder: Path, random: Random) -> None:
    value = random.choice(VALUES)
    edit_json(index_of(folder), lambda index: index.update(weight_map=value))


@mutation("indices", SHARDS, BIN_SHARDS, heavy=True)
def many_shards(folder: Path, random: Random) -> None:
    """A hundred thousand names, of files that are there or are not."""
    there = random.choice([True, False])
    names = {str(number): "part-0.safetensors" if there else f"{number}.bin" for number in range(100_000)}
    edit_json(index_of(folder), lambda index: index["weight_map"].update(names))


@mutation("indices", SHARDS, BIN_SHARDS)
def shard_gone_or_odd(folder: Path, random: Random) -> bool:
    """Links are how the Hugging Face cache keeps files, but one that leads to nothing, in circles or to a device is no shard."""
    path = random.choice(weight_files(folder))
    path.unlink()
    match random.randrange(5):
        case 0:
            pass
        case 1:
            path.symlink_to(path)
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            os.mkfifo(path)
        case 4:
            path.symlink_to(folder)
    return True


@mutation("indices", SHARDS, BIN_SHARDS)
def shard_linked(folder: Path, random: Random) -> bool:
    """As the Hugging Face cache does it: nothing is wrong."""
    path = random.choice(weight_files(folder))
    path.rename(folder.parent / "blob")
    path.symlink_to("../blob")
    return False


def index_of(folder: Path) -> Path:
    return folder / (INDEX if (folder / INDEX).exists() else BIN_INDEX)
