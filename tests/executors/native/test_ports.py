"""Every kernel gives the same numbers on every processor, under an emulator where this machine is another, and the right one is chosen."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.executors.native.models import DTYPES, NATIVE, READERS, distance
from tests.executors.native.ports import Port, make_driver, make_port, record
from tests.executors.native.variants import CPU_CHOICE, build_choice
from tgen.executors.native.build import HERE, LIBRARY

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("g++") is None, reason="needs g++ on x86-64 Linux"
    ),
]
MODELS = list(dict.fromkeys((*NATIVE, *READERS)))
ARM, ARM_ROOT = "aarch64-linux-gnu-g++", "/usr/aarch64-linux-gnu"
# The kernels, and the processors of the emulator that choose them. The emulator has no AVX-512.
X86 = {"Haswell": "avx2", "EPYC": "avx2", "Skylake-Server": "avx2", "SandyBridge": "plain", "Nehalem": "plain", "qemu64": "plain"}
ARMS = {"max": "neon", "neoverse-n1": "neon", "cortex-a76": "neon", "cortex-a57": "plain", "cortex-a53": "plain"}
AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512bf16")
AVX2 = ("avx2", "fma", "f16c")


def once(temporary: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the processes that run the tests makes for all of them."""
    base = temporary.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "driver").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
    return folder


@pytest.fixture(scope="session")
def x86(tmp_path_factory: pytest.TempPathFactory) -> Port:
    """The library as it is installed."""

    def make(folder: Path) -> None:
        shutil.copy(HERE / LIBRARY, folder)
        make_driver(folder, "g++")

    return Port(once(tmp_path_factory, "x86", make))


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Port:
    need("qemu-aarch64", "qemu-user")
    need(ARM, "g++-aarch64-linux-gnu")
    return Port(once(tmp_path_factory, "arm", lambda folder: make_port(folder, ARM, "aarch64")), emulator("aarch64", "max"))


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install {package}")


def emulator(machine: str, processor: str) -> list[str]:
    return [f"qemu-{machine}", *(["-L", ARM_ROOT] if machine == "aarch64" else []), "-cpu", processor]


# How far rows may be apart. Where a format rounds a number that lies between two of its own, kernels that differ in the last bit round it
# to different ones: the numbers of a float16 cache, and activations where integers or (on AVX-512) bfloat16 multiply. An integer's step is
# wide, but few rows have one.
NEAR = 2e-5
WORST = {"float32": NEAR, "bfloat16": 5e-4, "float16": 5e-4, "int8": 0.3, "int4": 0.3}
MOST_ROWS_APART = 0.06


def check(port: Port, kernel: str, dtype: str, folder: Path) -> None:
    """The kernel gives what the plain one gives here."""
    worst = 0.3 if (kernel, dtype) == ("avx512", "bfloat16") else WORST[dtype]
    rows: dict[str, list[float]] = {}
    for name in MODELS:
        recorded = record(name, dtype, "plain", folder)
        pairs = zip(port.results(recorded, kernel), recorded.expected, strict=True)
        rows[name] = [distance(row, wanted) for found, (expected, _) in pairs for row, wanted in zip(found, expected, strict=True)]
        recorded.calls.unlink()
    assert all(rows.values())
    assert {name: max(far) for name, far in rows.items() if not max(far) < worst} == {}
    every = sorted(far for several in rows.values() for far in several)
    if worst == WORST[dtype]:
        assert sum(far > NEAR for far in every) < MOST_ROWS_APART * len(every)
    else:
        assert every[len(every) // 2] < 5e-3  # every row of bfloat16 activations is a little apart


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["neon", "plain"])
def test_arm_gives_the_same_numbers(arm: Port, kernel: str, dtype: str, tmp_path: Path) -> None:
    check(arm, kernel, dtype, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("processor", "kernel"), [("Haswell", "avx2"), ("Nehalem", "plain")])
def test_older_processors_give_the_same_numbers(x86: Port, processor: str, kernel: str, dtype: str, tmp_path: Path) -> None:
    need("qemu-x86_64", "qemu-user")
    check(Port(x86.folder, emulator("x86_64", processor)), kernel, dtype, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["avx512", "avx2"])
def test_this_processor_gives_the_same_numbers(x86: Port, kernel: str, dtype: str, tmp_path: Path) -> None:
    from tests.executors.native.models import KERNELS

    if kernel not in KERNELS:
        pytest.skip(f"this processor has no {kernel}")
    check(x86, kernel, dtype, tmp_path)


@pytest.mark.parametrize(("processor", "kernel"), X86.items())
def test_the_kernel_fits_the_processor(x86: Port, processor: str, kernel: str, tmp_path: Path) -> None:
    need("qemu-x86_64", "qemu-user")
    ended = x86.run(record("llama3", "float32", "plain", tmp_path).calls, emulator=emulator("x86_64", processor))
    assert (ended.returncode, ended.stdout) == (0, f"{kernel}\n"), ended


@pytest.mark.parametrize(("processor", "kernel"), ARMS.items())
def test_the_kernel_fits_an_arm_processor(arm: Port, processor: str, kernel: str, tmp_path: Path) -> None:
    ended = arm.run(record("llama3", "int8", "plain", tmp_path).calls, emulator=emulator("aarch64", processor))
    assert (ended.returncode, ended.stdout) == (0, f"{kernel}\n"), ended


def test_the_emulator_refuses_what_a_processor_lacks(x86: Port, tmp_path: Path) -> None:
    """So a kernel that ran had no instruction beyond its processor's."""
    need("qemu-x86_64", "qemu-user")
    ended = x86.run(record("llama3", "float32", "plain", tmp_path).calls, "avx2", emulator("x86_64", "Nehalem"))
    assert ended.returncode != 0
    assert "avx2" in ended.stdout or "Illegal" in ended.stderr or ended.returncode in (-4, 132)


@pytest.fixture(scope="session")
def choice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choice")
    build_choice(folder)
    return folder / CPU_CHOICE


@pytest.mark.parametrize(
    ("features", "kernel"),
    [
        ((), "plain"),
        (("avx2", "fma"), "plain"),
        (("avx512f",), "plain"),
        (AVX2, "avx2"),
        ((*AVX2, "avx512f"), "avx2"),
        ((*AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq"), "avx2"),
        ((*AVX2, *AVX512), "avx512"),
        *(((*AVX2, *(one for one in AVX512 if one != lacking)), "avx2") for lacking in AVX512),
    ],
)
def test_a_kernel_runs_only_where_all_its_features_are(choice: Path, features: tuple[str, ...], kernel: str) -> None:
    """Processors that the emulator cannot be: with only a part of AVX-512."""
    done = subprocess.run([choice, *features], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == kernel
