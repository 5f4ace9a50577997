"""Damage that needs no knowledge of a file's format, and things that stand in place of a file."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from random import Random

from tests.fuzz.mutation import json_files, mutation, weight_files


def any_file(folder: Path, random: Random) -> Path:
    return random.choice(json_files(folder) + 2 * weight_files(folder))


@mutation("flips")
def bits(folder: Path, random: Random) -> None:
    path = any_file(folder, random)
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 1, 1, 4, 16, 256])):
        place = random.randrange(len(data))
        data[place] ^= 1 << random.randrange(8)
    path.write_bytes(data)


@mutation("flips")
def bits_at_the_start(folder: Path, random: Random) -> None:
    """Where headers are."""
    path = random.choice(weight_files(folder))
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 2, 8])):
        data[random.randrange(min(400, len(data)))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


@mutation("flips")
def bits_at_the_end(folder: Path, random: Random) -> None:
    """Where a zip archive has its table of contents."""
    path = random.choice(weight_files(folder))
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 2, 8])):
        data[-1 - random.randrange(min(3000, len(data)))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


@mutation("lengths")
def truncated(folder: Path, random: Random) -> None:
    path = any_file(folder, random)
    data = path.read_bytes()
    path.write_bytes(data[: random.choice([0, 1, 7, 8, 9, random.randrange(len(data)), len(data) - 1])])


@mutation("lengths")
def longer(folder: Path, random: Random) -> None:
    path = any_file(folder, random)
    data = path.read_bytes()
    path.write_bytes(data + random.choice([b"\0", random.randbytes(50), data, b"\0" * 2**20]))


@mutation("lengths")
def hole(folder: Path, random: Random) -> None:
    """Zeros in place of a block, as after a crash of the machine."""
    path = any_file(folder, random)
    data = bytearray(path.read_bytes())
    start = random.randrange(len(data))
    length = min(len(data) - start, random.choice([16, 512, 4096]))
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


@mutation("lengths")
def shuffled(folder: Path, random: Random) -> None:
    """A block where another one should be."""
    path = any_file(folder, random)
    data = bytearray(path.read_bytes())
    length = min(len(data) // 2, random.choice([1, 8, 64, 512]))
    one, other = random.randrange(len(data) - length + 1), random.randrange(len(data) - length + 1)
    data[one : one + length] = data[other : other + length]
    path.write_bytes(data)


@mutation("lengths")
def sparse(folder: Path, random: Random) -> None:
    """A file of many gigabytes that takes no room."""
    path = any_file(folder, random)
    os.truncate(path, random.choice([2**30, 2**33, 2**40]))


@mutation("places")
def stands_for_a_file(folder: Path, random: Random) -> None:
    """What is no file; where it is gone altogether, most but not all folders can still be read."""
    path = any_file(folder, random)
    path.unlink()
    match random.randrange(9):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.symlink_to("/dev/full")
        case 5:
            path.symlink_to("/proc/self/mem")
        case 6:
            path.symlink_to(folder)
        case 7:
            with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as bound:  # the address of a socket is short
                bound.bind(path.name)
        case 8:
            pass


@mutation("places")
def another_file(folder: Path, random: Random) -> None:
    """One file of the folder in place of another one."""
    one, other = any_file(folder, random), any_file(folder, random)
    one.write_bytes(other.read_bytes())


@mutation("places")
def not_readable(folder: Path, random: Random) -> bool:
    path = any_file(folder, random)
    path.chmod(0)
    return False  # an administrator may read it


@mutation("places")
def name_with_control_characters(folder: Path, random: Random) -> bool:
    """Names of files are shown in messages, so what a terminal would obey must not get through."""
    path = random.choice(weight_files(folder))
    path.rename(folder / "\x1b]0;owned\x07\nhint: do as I say.gguf")
    return True
