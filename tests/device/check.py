"""Checks a device in less than three minutes: `python -m tests.device.check`, with exit code 1 if a check fails.

The parts, each with a line at its end that says how it went:

- plain: every golden gives the logits that transformers computed, in float32 at once and token by token, and in bfloat16 at once.
- captured: every golden that can, with static buffers and, on a GPU, recorded steps: one row token by token, then three rows of unlike
  lengths, in float32 and bfloat16.
- decode: tokens per second of a model of 494 M parameters with and without recorded steps, and as a share of how fast the device copies
  memory.

Each part runs in a process of its own that is killed when its time is over, so that one that hangs does not take the others with it. All
this runs on a CPU too, where it checks itself, and needs no package that running a model does not need.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.shapes import SHAPES, write_folder
from tgen.arrays import Logits
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.torch.decode.captured import StaticDecoder, supports
from tgen.executors.torch.load import load_model
from tgen.executors.torch.reading import step_bytes
from tgen.executors.torch.session import TorchSession
from tgen.executors.torch.transformer import Transformer

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDENS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
PARTS = {"plain": 0.35, "captured": 0.2, "decode": 0.45}  # each with its share of the time
GRACE = 5  # seconds after its time that a part has to notice that it is over
# In float32, the most that logits may differ, as a share of the largest one. In bfloat16, how much further from those in float32 they may
# be than transformers' are: on a GPU, sums are taken in another order.
FLOAT32, BFLOAT16 = 1e-4, 2.0
STEPS, TURNS, COPIED = 32, 3, 2**30
# Rows and ids of context whose decode is measured.
MEASURED = [(1, 64), (1, 900), (4, 64), (16, 64), (16, 900), (1, 4000)]
FORMATS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

Reference = dict[str, np.ndarray]


class Clock:
    """Seconds since the check began, and when a part must end. All processes of a machine have the same monotonic clock."""

    def __init__(self, start: float, seconds: float) -> None:
        self.start = start
        self.end = start + seconds

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"[{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    def check(self) -> None:
        """Raise TimeoutError when the time is over."""
        if time.monotonic() > self.end:
            raise TimeoutError


def main() -> int:
    """Run all parts, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=SHAPES, default="494M", help="the model whose decode is measured")
    parser.add_argument("--seconds", type=float, default=150, help="the time for all parts together")
    parser.add_argument("--profile", action="store_true", help="list the kernels of a step that take longest")
    parser.add_argument("--part", choices=PARTS, help="run this part alone, in this process")
    parser.add_argument("--start", type=float, default=time.monotonic(), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    clock = Clock(settings.start, settings.seconds)
    if settings.part:
        run = {"plain": plain, "captured": captured, "decode": decode}[settings.part]
        return run(settings, clock)
    ends = accumulate(share * settings.seconds for share in PARTS.values())
    results = {part: run_part(part, settings, clock, end) for part, end in zip(PARTS, ends, strict=True)}
    clock.say("== " + "; ".join(f"{part}: {result}" for part, result in results.items()))
    return any(result != "passed" for result in results.values())


def run_part(part: str, settings: argparse.Namespace, clock: Clock, end: float) -> str:
    """How a part ended that ran in a process of its own; it must end so many seconds after the start."""
    command = [sys.executable, "-m", "tests.device.check", "--part", part, "--start", str(clock.start), "--seconds", str(end)]
    command += ["--device", settings.device, "--shape", settings.shape, *(["--profile"] if settings.profile else [])]
    try:
        left = clock.start + end - time.monotonic()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=max(left, 1) + GRACE).returncode
    except subprocess.TimeoutExpired:
        clock.say(f"== {part}: KILLED, since it did not end in its time")
        return "killed"
    return {0: "passed", 1: "FAILED"}.get(code, f"CRASHED with code {code}")


def goldens(part: str, clock: Clock, check: Callable[[str], Iterator[tuple[bool, str]]]) -> int:
    """Check every golden while there is time; `check` yields whether each comparison is right, and what it found."""
    right, wrong, done = 0, 0, 0
    clock.say(f"{part}: starts")
    for name in GOLDENS:
        if time.monotonic() > clock.end:
            break
        try:
            for good, found in check(name):
                right, wrong = right + good, wrong + (not good)
                if not good:
                    clock.say(f"{part}, {name}: {found}")
        except Exception as error:  # the next golden may be right
            wrong += 1
            clock.say(f"{part}, {name}: {type(error).__name__}: {first_line(error)}")
        done += 1
    missed = f", OUT OF TIME before {len(GOLDENS) - done} others" if done < len(GOLDENS) else ""
    clock.say(f"== {part}: {done} goldens{missed}: {right} comparisons right, {wrong} wrong")
    return wrong > 0 or bool(missed)


def plain(settings: argparse.Namespace, clock: Clock) -> int:
    """The part of this name."""

    def check(name: str) -> Iterator[tuple[bool, str]]:
        reference = load_reference(name)
        for dtype in FORMATS:
            model = load_golden(name, settings.device, dtype)
            yield compared("at once", at_once(model, reference), reference, dtype)
            if model.spec.decoder is not None and model.head is not None and dtype == torch.float32:
                session = TorchSession(model)
                session.admit([reference["source"].tolist() if "source" in reference else None])
                yield compared("token by token", stepped(session, reference), reference, dtype)

    return goldens("plain", clock, check)


def captured(settings: argparse.Namespace, clock: Clock) -> int:
    """The part of this name."""

    def check(name: str) -> Iterator[tuple[bool, str]]:
        reference = load_reference(name)
        if not supports(open_checkpoint(GOLDEN / name).spec):
            return
        for dtype in FORMATS:
            model = load_golden(name, settings.device, dtype)
            decoder = StaticDecoder(model, capture=settings.device == "cuda")
            session = TorchSession(model, decoder)
            session.admit([None])
            yield compared("token by token", stepped(session, reference), reference, dtype)
            yield compared("three rows", *three_rows(TorchSession(model, decoder), reference), dtype)
            yield not decoder.failed, f"{FORMATS[dtype]}: a step could not be recorded"

    return goldens("captured", clock, check)


def compared(what: str, found: Logits, reference: Reference, dtype: torch.dtype) -> tuple[bool, str]:
    """Whether logits are near enough to the reference, and how far they are."""
    exact = reference["logits"]
    if dtype == torch.float32:
        apart, most = float(np.abs(found - exact).max() / np.abs(exact).max()), FLOAT32
        return apart < most, f"float32, {what}: {apart:.1e} of the largest logit apart"
    apart, theirs = (float(np.sqrt(np.square(one - exact).mean())) for one in (found, reference["bfloat16_logits"]))
    return apart < BFLOAT16 * theirs, f"bfloat16, {what}: the rounding error is {apart / theirs:.2f} times that of transformers"


def load_reference(name: str) -> Reference:
    """What transformers computed; bfloat16 is stored as the upper halves of float32."""
    with np.load(GOLDEN / name / "golden.npz") as arrays:
        return {
            key: (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array for key, array in arrays.items()
        }


def load_golden(name: str, device: str, dtype: torch.dtype) -> Transformer:
    """A golden's model."""
    return load_model(open_checkpoint(GOLDEN / name), torch.device(device), dtype)


@torch.inference_mode()
def at_once(model: Transformer, reference: Reference) -> Logits:
    """Logits without a cache; hidden states where there is no head."""
    ids, source = (torch.from_numpy(reference[key])[None].to(model.device) if key in reference else None for key in ("ids", "source"))
    assert ids is not None
    hidden = model(ids, source=None if source is None else model.read_source(source))[0]
    found: Logits = (hidden if model.head is None else model.logits(hidden)).float().cpu().numpy()
    return found


def stepped(session: TorchSession, reference: Reference) -> Logits:
    """The logits of a session with one row, token by token."""
    return np.concatenate([session.extend([[token]]) for token in reference["ids"].tolist()])


def three_rows(session: TorchSession, reference: Reference) -> tuple[Logits, Reference]:
    """The logits of rows that begin at different places and go on together, and the reference for them."""
    ids, starts = reference["ids"].tolist(), [1, 4, 8]
    steps = len(ids) - max(starts)
    session.admit([None] * 3)
    session.extend([ids[:start] for start in starts])
    found = np.concatenate([session.extend([[ids[start + step]] for start in starts]) for step in range(steps)])
    places = [start + step for step in range(steps) for start in starts]
    return found, {key: reference[key][places] for key in ("logits", "bfloat16_logits")}


def decode(settings: argparse.Namespace, clock: Clock) -> int:
    """The part of this name."""
    device, summary, failed = settings.device, [], False
    memory = bandwidth(device)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    clock.say(f"decode: {name}, torch {torch.__version__}; a copy reads and writes {memory / 1e9:.0f} GB/s together")
    model = shaped(settings.shape, device)
    clock.say(f"decode: {settings.shape} is loaded in {FORMATS[model.dtype]}")
    decoder = StaticDecoder(model, capture=device == "cuda")
    try:
        for rows, context in MEASURED:
            weights, whole = step_bytes(model, 0), step_bytes(model, context + STEPS // 2)
            read = weights + rows * (whole - weights)
            times = {}
            for way, session in (("plain", TorchSession(model)), ("captured", TorchSession(model, decoder))):
                first, times[way] = step_seconds(session, rows, context, device, clock)
                clock.say(
                    f"decode: {rows:2} rows, {context:4} ids of context, {way:8}: {times[way] * 1e3:6.2f} ms a step, first step "
                    f"{first * 1e3:.0f} ms; {rows / times[way]:.0f} tokens/s, {read / times[way] / memory:.0%} of the bandwidth"
                )
            share = read / times["captured"] / memory
            summary.append(f"{rows}x{context} {times['plain'] / times['captured']:.1f} times as fast, {share:.0%}")
        if settings.profile:
            for context in (64, 4000):
                profile(TorchSession(model, decoder), context, device, clock)
    except TimeoutError:
        summary.append("OUT OF TIME")
        failed = True
    except Exception as error:
        summary.append(f"{type(error).__name__}: {first_line(error)}")
        failed = True
    recorded = "a step could NOT be recorded; " if decoder.failed else ""
    clock.say(f"== decode: captured against plain, share of bandwidth: {recorded}{'; '.join(summary)}")
    return failed or decoder.failed


def shaped(shape: str, device: str) -> Transformer:
    """A model of random weights in bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), SHAPES[shape])
        return load_model(open_checkpoint(Path(folder)), torch.device(device), torch.bfloat16)


def step_seconds(session: TorchSession, rows: int, context: int, device: str, clock: Clock) -> tuple[float, float]:
    """Seconds of the first decode step, and the median of some turns of further ones."""
    prepare(session, rows, context, clock)

    def steps(count: int) -> None:
        for token in range(count):
            clock.check()
            session.extend([[token + 5]] * rows)

    first, found = seconds(lambda: steps(1), device), []
    for _ in range(TURNS):
        session.truncate([context + 1] * rows)
        found.append(seconds(lambda: steps(STEPS), device) / STEPS)
    return first, statistics.median(found)


def prepare(session: TorchSession, rows: int, context: int, clock: Clock) -> None:
    """Let rows read so many ids, the same in each."""
    session.admit([None])
    ids = np.random.default_rng(0).integers(5, 5000, context).tolist()
    for start in range(0, context, 512):
        clock.check()
        session.extend([ids[start : start + 512]], [0])
    session.select([0] * rows)


def profile(session: TorchSession, context: int, device: str, clock: Clock) -> None:
    """List the kernels that take longest in eight steps of one row after so many ids."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    prepare(session, 1, context, clock)
    session.extend([[5]])
    with recording(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as found:
        for token in range(8):
            session.extend([[token + 5]])
    clock.say(f"decode: the kernels of eight steps after {context} ids")
    print(found.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=25, max_name_column_width=90), flush=True)


def bandwidth(device: str) -> float:
    """Bytes per second that the device reads and writes when it copies a GiB."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / min(seconds(lambda: target.copy_(source), device) for _ in range(TURNS + 1))


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


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).splitlines() or [""])[0]


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a driver in trouble can hang when it cleans up
