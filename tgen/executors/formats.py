"""The memory of this machine and process, and the number format that --dtype auto chooses, found without importing torch."""

from __future__ import annotations

import os
import sys

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# The share of the free memory that float32 weights may take; the rest is for the cache, activations and other programs.
WEIGHTS_SHARE = 0.7
# The format for each value of --dtype; None means that it depends on the model and the machine.
NUMBER_FORMATS = {"auto": None, "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def fits_as_float32(parameter_count: int, free: int | None) -> bool:
    """Whether float32 weights leave enough of the `free` bytes of memory to compute; None, an unknown size, counts as enough."""
    return free is None or 4 * parameter_count <= WEIGHTS_SHARE * free


def available_memory() -> int | None:
    """Bytes of memory that this process can take without swapping; None if the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def resident_memory() -> int:
    """Bytes of memory that this process holds now; where the system does not say, the most that it has held so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return peak_memory()


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    import resource  # which Windows lacks, and few commands need

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def automatic_format(stored: str, parameter_count: int) -> str:
    """The format that --dtype auto chooses on this machine for weights stored in a format; both are safetensors names."""
    if not has_accelerator() and fits_as_float32(parameter_count, available_memory()):
        return "F32"
    return stored


def has_accelerator() -> bool:
    """Whether torch would find CUDA or MPS, judged by the installed torch and the machine's devices."""
    if not os.path.exists("/dev/nvidiactl") and not (sys.platform == "darwin" and os.uname().machine == "arm64"):
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False
