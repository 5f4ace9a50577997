"""`.bin` files as an enemy would write them: pickles that call things, zip bombs, storages that are not what they say."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.checkpoint.forms import BIN
from tests.fuzz.mutation import BIN_SHARDS, OLD_BIN, ONE_BIN, mutation, weight_files

MARKER = "sprung"


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class State(Call):
    """The same, and then sets attributes."""

    def __reduce__(self) -> Any:
        return (*self.call, {"requires_grad": True, "__class__": 7})


def trap(folder: Path, random: Random) -> object:
    """Something that leaves a marker beside the folder when it is unpickled without care."""
    marker = str(folder.parent / MARKER)
    touch = f"open({marker!r}, 'w').close()"
    return random.choice(
        [
            Call(os.system, f"touch {marker}"),
            Call(exec, touch),
            Call(eval, touch),
            Call(os.mkdir, marker),
            Call(Path.mkdir, Path(marker)),
            Call(open, marker, "w"),
            Call(getattr, Path, "cwd"),
            Call(__import__, "antigravity"),
            Call(torch.save, {}, marker),
            Call(pickle.loads, pickle.dumps(Call(os.mkdir, marker))),
            Call(torch.load, marker),
            State(torch.nn.Linear, 3, 3),
        ]
    )


@mutation("pickles", ONE_BIN, OLD_BIN, BIN_SHARDS)
def code(folder: Path, random: Random) -> bool:
    """A pickle that wants to run something, in every wrapping."""
    path = random.choice(weight_files(folder))
    evil = trap(folder, random)
    plain = torch.load(path, weights_only=True)
    holder: Any = random.choice([{**plain, "x": evil}, {"x": evil}, evil, [evil], {"x": {"y": (evil,)}}, {7: evil}])
    match random.randrange(3):
        case 0:
            torch.save(holder, path)
        case 1:
            torch.save(holder, path, _use_new_zipfile_serialization=False)
        case 2:
            path.write_bytes(pickle.dumps(holder, protocol=random.choice([0, 1, 2, 4, 5])))
    return True


PROTOCOL = b"\x80\x02"
WORDS: list[bytes] = [
    PROTOCOL + b"(" * 100_000 + b".",
    PROTOCOL + b"]" * 3_000_000 + b".",
    PROTOCOL + b"](" * 1_000_000 + b"e" * 1_000_000 + b".",
    PROTOCOL + b"K\x01" * 3_000_000 + b".",
    PROTOCOL + b"]q\x00" + b"(" + b"h\x00h\x00" * 1000 + b"e.",  # a list of itself
    PROTOCOL
    + b"]q\x00"
    + b"".join(b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1]) for n in range(200))
    + b".",
    PROTOCOL + b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
    PROTOCOL + b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    PROTOCOL + b"cbuiltins\nset\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R.",
    PROTOCOL + b"X\xff\xff\xff\x7fa.",
    PROTOCOL + b"B\xff\xff\xff\x7fa.",
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
    PROTOCOL + b"\x8b\xff\xff\xff\x7f\x01.",
    PROTOCOL + b"\x8a\xff" + b"\x7f" * 255 + b".",
    PROTOCOL + b"ctorch\nTensor\n)R.",
    PROTOCOL + b"ctorch\nTensor\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    PROTOCOL + b"ctorch\nFloatStorage\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    PROTOCOL + b"ctorch\nFloatStorage\nJ\x00\x00\x00\x40\x85R.",
    PROTOCOL + b"ctorch\nSize\nccollections\nOrderedDict\n)R\x85R.",
    PROTOCOL + b"ccollections\nCounter\nX\x05\x00\x00\x00aaaaa\x85R.",
    PROTOCOL + b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\nK\x02\x85K\x01\x85\x89tR.",
    PROTOCOL + b"(K\x00Q.",
    PROTOCOL + b"X\x01\x00\x00\x00aQ.",
    PROTOCOL + b"K\x07.",
    PROTOCOL + b"}.",
    PROTOCOL + b"ctorch\nfloat32\n.",
    b"\x80\xff.",
    b"0.",
    b".",
    b"",
    b"(dp0\nS'a'\nF1.0\ns.",
    b"I" + b"9" * 1000 + b"\n.",
    b"F1e999\n.",
    b"V" + b"\\ud800" * 100 + b"\n.",
    PROTOCOL + b"}X\x01\x00\x00\x00aK\x01s}b.",
    PROTOCOL + b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(name: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """What names a storage; it is remembered under 0, and the function that makes a tensor under 1."""
    description = b"(" + text("storage") + name + text("0") + text("cpu") + b"K\x08tQq\x00"
    return description + b"ctorch._utils\n_rebuild_tensor\nq\x01"


# Tuples in tuples, each twice in the next: remembered under 240, and never to be gone through.
NESTED = b")" + b"".join(b"q%ch%c\x86" % (number, number) for number in range(100)) + b"q\xf0"
NUMBER = b"\x8a\xff" + b"\x7f" * 255
# Small programs that would keep a reader busy for a minute, or for ever.
ENDLESS: dict[str, bytes] = {
    "sizes that are multiplied": storage() + b"(h\x00K\x00(" + NUMBER + b"q\x02" + b"h\x02" * 40_000 + b"K\x00tq\x03h\x03tR.",
    "many axes": storage() + b"(h\x00K\x00(" + b"K\x01" * 300_000 + b"tq\x03h\x03tq\x04R" + b"h\x01h\x04R" * 200_000 + b".",
    "many arguments": storage() + b"(h\x00K\x00))" + b"N" * 400_000 + b"tq\x04R" + b"h\x01h\x04R" * 200_000 + b".",
    "many calls": storage() + b"(h\x00K\x00(" + b"K\x01" * 8 + b"tq\x03h\x03tq\x04R" + b"h\x01h\x04R" * 400_000 + b".",
    "a nested key": NESTED + b"}h\xf0K\x01s.",
    "a nested key among several": NESTED + b"}(h\xf0K\x01u.",
    "a nested name": NESTED + storage(b"h\xf0") + b".",
    "a key that is slow to hash": b"\x8b" + struct.pack("<i", 900_000) + b"\x7f" * 900_000 + b"q\x00}q\x01" + b"h\x00Ns" * 200_000 + b".",
    "a class made many times": b"ccollections\nOrderedDict\nq\x00(" + b"N" * 500_000 + b"tq\x01\x81" + b"h\x00h\x01\x81" * 200_000 + b".",
    "a set": NESTED + b"(h\xf0\x91.",
}
WORDS += [PROTOCOL + program for program in ENDLESS.values()]


@mutation("pickles", ONE_BIN)
def opcodes(folder: Path, random: Random) -> bool:
    """A program for the unpickler in place of the dictionary."""
    program = random.choice(WORDS)
    if random.random() < 0.5:
        rewrite(folder / BIN, lambda name, content: program if name.endswith("data.pkl") else content)
    else:
        (folder / BIN).write_bytes(program)
    return True


@mutation("pickles", ONE_BIN)
def program_flips(folder: Path, random: Random) -> None:
    """A few bits of the pickle itself, with every checksum right."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        data = bytearray(content)
        for _ in range(random.choice([1, 1, 2, 8])):
            data[random.randrange(len(data))] = random.randrange(256)
        return bytes(data)

    rewrite(folder / BIN, change)


@mutation("pickles", OLD_BIN)
def old_program_flips(folder: Path, random: Random) -> None:
    path = folder / BIN
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 2, 8])):
        data[random.randrange(min(len(data), 4000))] = random.randrange(256)
    path.write_bytes(data)


@mutation("tensors", ONE_BIN, OLD_BIN, BIN_SHARDS)
def odd_tensors(folder: Path, random: Random) -> None:
    """What a `.bin` may hold besides plain tensors in rows."""
    path = random.choice(weight_files(folder))
    tensors = torch.load(path, weights_only=True)
    name = random.choice(list(tensors))
    old = tensors[name]
    odd: list[Callable[[], object]] = [
        lambda: old.to_sparse(),
        lambda: old.to("meta"),
        lambda: torch.empty(2**20, 2**20, device="meta"),
        lambda: torch.zeros(1).expand(old.shape),
        lambda: torch.zeros(1).expand(2**20, 2**20),
        lambda: old.T.contiguous().T if old.ndim == 2 else old,
        lambda: old.to(torch.complex64),
        lambda: old.to(torch.float8_e4m3fn),
        lambda: torch.quantize_per_tensor(old.float(), 0.1, 0, torch.qint8),
        lambda: torch.nn.Parameter(old),
        lambda: old.half(),
        lambda: old.double() * 1e300,
        lambda: old * float("nan"),
        lambda: old[..., :0],
        lambda: old.reshape(-1)[0],
        lambda: 7,
        lambda: "x" * 100_000,
        lambda: None,
        lambda: {"a": old},
        lambda: torch.device("cuda"),
        lambda: torch.nested.nested_tensor([torch.ones(2)]),
        lambda: torch.complex(old.float(), old.float()).conj().imag,
        lambda: torch._neg_view(old),
    ]
    with_warnings_off(lambda: tensors.update({name: random.choice(odd)()}))
    if random.random() < 0.2:
        tensors = random.choice([collections.OrderedDict(tensors), {7: old, **tensors}, list(tensors.values()), old, {}])
    torch.save(tensors, path, _use_new_zipfile_serialization=random.random() < 0.8)


def with_warnings_off(work: Callable[[], object]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work()


@mutation("tensors", ONE_BIN)
def storage_sizes(folder: Path, random: Random) -> None:
    """Storages shorter or longer than the tensors that lie in them."""
    new = random.choice([b"", b"\0", bytes(10_000)])
    rewrite(folder / BIN, lambda name, content: new if "/data/" in name and random.random() < 0.3 else content)


@mutation("tensors", ONE_BIN)
def numbers_in_the_program(folder: Path, random: Random) -> None:
    """Other sizes, offsets and strides in the pickle."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        small = [place for place in range(len(content) - 2) if content[place : place + 1] == b"K"]
        place = random.choice(small)
        new = random.choice(
            [b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x00", b"K\xff", b"N", b"\x88"]
        )
        return content[:place] + new + content[place + 2 :]

    rewrite(folder / BIN, change)


@mutation("bombs", ONE_BIN, heavy=True)
def inflating_record(folder: Path, random: Random) -> None:
    """A record that is small in the file and gigabytes in memory."""
    record = random.choice(["data.pkl", "version", "byteorder", "data/0", "data/1", ".format_version", ".data/serialization_id", "new"])
    count, byte = random.choice([(2**26, b"\0"), (2**26, b"("), (2**28, b"]"), (3 * 2**30, b"\0"), (3 * 2**30, b"\0")])
    with zipfile.ZipFile(folder / BIN) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = f"{next(iter(records)).split('/')[0]}/{record}"
    stream, check = deflated(count, byte)
    pack(folder / BIN, [*{**records, name: stream}.items()])
    with zipfile.ZipFile(folder / BIN) as archive:
        start = archive.getinfo(name).header_offset
    data = bytearray((folder / BIN).read_bytes())
    central = data.rindex(name.encode()) - 46
    for place in (start + 8, central + 10):  # the method; the check sum and both sizes follow after the time
        struct.pack_into("<H", data, place, zipfile.ZIP_DEFLATED)
        struct.pack_into("<III", data, place + 6, check, len(stream), count)
    (folder / BIN).write_bytes(data)


@functools.cache
def deflated(count: int, byte: bytes) -> tuple[bytes, int]:
    """A byte over and over, deflated, and its check sum."""
    deflate, check, block, parts = zlib.compressobj(1, wbits=-15), 0, byte * 2**22, []
    for _ in range(count // len(block)):
        parts.append(deflate.compress(block))
        check = zlib.crc32(block, check)
    return b"".join([*parts, deflate.flush()]), check


@mutation("bombs", ONE_BIN)
def compressed(folder: Path, _: Random) -> None:
    """Every record deflated: torch does not write this, but it may read it."""
    rewrite(folder / BIN, lambda _, content: content, zipfile.ZIP_DEFLATED)


@mutation("bombs", ONE_BIN)
def lies_about_sizes(folder: Path, random: Random) -> None:
    """Sizes in the table of contents that are not those of the records."""
    path = folder / BIN
    data = bytearray(path.read_bytes())
    places = [place for place in range(len(data) - 46) if data[place : place + 4] == b"PK\x01\x02"]
    for place in random.sample(places, random.choice([1, min(3, len(places))])):
        field = random.choice([20, 24, 42])  # compressed, uncompressed, where it starts
        struct.pack_into("<I", data, place + field, random.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**32 - 2, 10**9]))
    path.write_bytes(data)


@mutation("bombs", ONE_BIN)
def archive_layout(folder: Path, random: Random) -> None:
    """Doubled records, other roots, archives in archives, things before and after."""
    path = folder / BIN
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    match random.randrange(6):
        case 0:
            path.write_bytes(random.randbytes(100) + whole)
        case 1:
            path.write_bytes(whole + random.randbytes(100))
        case 2:
            path.write_bytes(whole + whole)
        case 3:
            with_warnings_off(lambda: pack(path, records + records[:3]))
        case 4:
            pack(path, [("../" + name, content) for name, content in records])
        case 5:
            pack(path, [(name, content) for name, content in records if random.random() < 0.8])


@mutation("bombs", ONE_BIN, heavy=True)
def many_records(folder: Path, random: Random) -> None:
    path = folder / BIN
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    pack(path, records + [(f"archive/data/x{number}", b"") for number in range(random.choice([1000, 70_000]))])


def rewrite(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """The archive with other contents."""
    with zipfile.ZipFile(path) as archive:
        records = [(name, change(name, archive.read(name))) for name in archive.namelist()]
    pack(path, records, compression)


def pack(path: Path, records: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    """Records as a zip archive."""
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in records:
                archive.writestr(name, content)
        path.write_bytes(buffer.getvalue())
