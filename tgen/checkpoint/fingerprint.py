"""Which weights a folder holds, in a few bytes: for what was computed with them and must not be used with others. Knows no model."""

from __future__ import annotations

import hashlib
import os

from tgen.checkpoint.container import Checkpoint

SAMPLES, SAMPLE_BYTES = 256, 4096


def fingerprint(checkpoint: Checkpoint) -> str:
    """A digest of config.json and of every file of weights: name, size, time of the last change, and a sample of its bytes.

    Reading all of a large model would take longer than what this is meant to save. The sample, one MiB a file from its header to its
    end, tells models apart that have the same shapes; the time tells that a file was written anew where the sample is the same. A copied
    folder may get another digest, which costs one reading of a prompt; never do other weights get the same.
    """
    digest = hashlib.sha256((checkpoint.folder / "config.json").read_bytes())
    for path in sorted({tensor.file for tensor in checkpoint.stored.values()}):
        status = path.stat()
        digest.update(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        with open(path, "rb") as file:
            for number in range(SAMPLES):
                digest.update(os.pread(file.fileno(), SAMPLE_BYTES, number * max(status.st_size - SAMPLE_BYTES, 0) // (SAMPLES - 1)))
    return digest.hexdigest()
