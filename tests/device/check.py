"""Checks a device in a few minutes: `python -m tests.device.check [--device cuda]`, with exit code 1 if a check fails.

Every golden gives the logits that transformers computed, in float32 at once and token by token, and in bfloat16; then the decode speed of
a model of 494 M parameters is compared with how fast the device copies memory. It runs on a CPU too, where it checks itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.shapes import SHAPES, write_folder
from tests.conftest import GOLDEN, GOLDENS, golden_reference
from tgen.arrays import Logits
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.open import open_executor
from tgen.executors.session import LoadedModel
from tgen.options import RunOptions

# The most that logits may differ, as a share of the largest one. bfloat16 keeps 8 bits of each number, and errors of tiny models add up.
FLOAT32, BFLOAT16 = 1e-4, 5e-2
STEPS, TURNS, COPIED = 64, 5, 2**30


def difference(found: Logits, expected: Logits) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def at_once(model: LoadedModel, ids: list[int], source: list[int] | None) -> Logits:
    session = model.open()
    session.admit([source])
    return session.extend([ids], [len(ids)])


def stepped(model: LoadedModel, ids: list[int], source: list[int] | None) -> Logits:
    session = model.open()
    session.admit([source])
    return np.concatenate([session.extend([[token]]) for token in ids])


def check_golden(name: str, device: str) -> list[str]:
    """What is wrong with one golden on the device."""
    reference, checkpoint = golden_reference(name), open_checkpoint(GOLDEN / name)
    if checkpoint.spec.head is None or checkpoint.spec.decoder is None:
        return []
    ids, source = reference["ids"].tolist(), reference["source"].tolist() if "source" in reference else None
    ways: dict[str, tuple[str, Callable[[LoadedModel, list[int], list[int] | None], Logits], str, float]] = {
        "float32 at once": ("float32", at_once, "logits", FLOAT32),
        "float32 stepped": ("float32", stepped, "logits", FLOAT32),
        "bfloat16": ("bfloat16", at_once, "bfloat16_logits", BFLOAT16),
    }
    wrong = []
    for way, (dtype, run, key, most) in ways.items():
        model = open_executor(checkpoint, RunOptions(device=device, dtype=dtype, executor="torch"))  # type: ignore[arg-type]
        expected = reference[key]
        if expected.dtype == np.uint16:  # the upper halves of float32
            expected = (expected.astype(np.uint32) << 16).view(np.float32)
        found = difference(run(model, ids, source), expected)
        if not found < most:
            wrong.append(f"{name}, {way}: {found:.1e} apart")
    return wrong


def seconds(work: Callable[[], object], device: str) -> float:
    """How long it takes until the device has done it."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def bandwidth(device: str) -> float:
    """Bytes per second that the device reads and writes when it copies a GiB."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / min(seconds(lambda: target.copy_(source), device) for _ in range(TURNS + 1))


def decode(model: LoadedModel, device: str) -> float:
    """Seconds of a decode step of one row."""
    session = model.open()
    session.admit([None])
    session.extend([list(range(5, 69))])

    def steps() -> None:
        for token in range(STEPS):
            session.extend([[token]])

    return min(seconds(steps, device) for _ in range(TURNS)) / STEPS


def main() -> int:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=SHAPES, default="494M")
    settings = parser.parse_args()
    wrong = [line for name in GOLDENS for line in check_golden(name, settings.device)]
    print("\n".join(wrong) or f"{len(GOLDENS)} goldens on {settings.device}: all equal")
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), SHAPES[settings.shape])
        model = open_executor(open_checkpoint(Path(folder)), RunOptions(device=settings.device, executor="torch"))
        step, memory = decode(model, settings.device), bandwidth(settings.device)
        share = model.step_bytes(64 + STEPS // 2) / step / memory
        print(f"{settings.shape} with {model.describe()}: {1 / step:.0f} tokens/s, {share:.0%} of the {memory / 1e9:.0f} GB/s of a copy")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
