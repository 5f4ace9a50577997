"""Other builds of the native library, for a sanitizer or another processor, and how tests run on one of them or on one kernel alone.

Environment variables choose, because the fuzzer's worker is a process of its own: NATIVE_LIBRARY is a folder with a library, NATIVE_KERNEL
the name of the only kernel that counts as runnable. `tests/conftest.py` reads them, the package does not.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path
from unittest import mock

from tgen.executors.native import build

LIBRARY, KERNEL = "NATIVE_LIBRARY", "NATIVE_KERNEL"
CPU_CHOICE = "choice"
NO_KERNEL = """namespace {} {{
int run_program(Model*, const Program*, const Batch*, int64_t*) {{ return 1; }}
void pack_matrix(int32_t, int32_t, int32_t, int32_t, const uint8_t*, uint8_t*, int32_t, int32_t) {{}}
float read_all(Pool*, const uint8_t*, int64_t) {{ return 0; }}
float finite_highest(const float*, int64_t) {{ return 0; }}
void group_maxima(const float*, int64_t, int64_t, float*) {{}}
int64_t places_from(const float*, int64_t, float, int64_t, int64_t*) {{ return 0; }}
void keep_some(const float*, const uint8_t*, int64_t, float*) {{}}
int64_t exact_sums(const float*, int64_t, int64_t, double, double, const float*, double*, double*, float*, int64_t*) {{ return 0; }}
int64_t fewest(const float*, int64_t, int64_t, double, double, double, int32_t, int64_t, double*, float*, double*, int64_t*, void*) {{
    return -1;
}}
void rough_sums(const float*, int64_t, int64_t, float, float, double*) {{}}
}}
"""


def choose() -> None:
    """Use the library and the kernel that the environment names, in this process."""
    if LIBRARY not in os.environ and KERNEL not in os.environ:
        return
    from tgen.executors.native import library
    from tgen.executors.native import open as opening

    if folder := os.environ.get(LIBRARY):
        mock.patch.object(library, "HERE", Path(folder)).start()
        assert library.load().library is not None, library.load().problem
    if kernel := os.environ.get(KERNEL):
        every = library.kernels

        def only(loaded: ctypes.CDLL) -> dict[str, int]:
            return {kernel: every(loaded)[kernel]}

        for module in (library, opening):
            mock.patch.object(module, "kernels", only).start()


def build_library(folder: Path, compiler: str, machine: str | None = None, speed: str = "-O3", root: Path = build.HERE) -> None:
    """Build the library into a folder with this compiler, whose words may hold flags, for a machine (this one's if None).

    `root` is where `src` lies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    machines = mock.patch.object(build, "_machine", lambda: machine or platform.machine().lower())
    flags = mock.patch.object(build, "FLAGS", [speed if flag == "-O3" else flag for flag in build.FLAGS])
    with mock.patch.dict(os.environ, {"CXX": compiler}), machines, flags, mock.patch.object(build, "HERE", root):
        problem = build.build(folder)
    assert problem is None, problem


def plain_sources(root: Path) -> Path:
    """A copy of the sources under `root`, where only the plain kernel is more than a name: it compiles in seconds. Returns `src`."""
    source = shutil.copytree(build.HERE / "src", root / "src")
    for kernel in ("avx512", "avx2", "neon"):
        (source / "kernels" / f"{kernel}.cpp").write_text(f'#include "../model.h"\n{NO_KERNEL.format(kernel)}')
    return source


def build_choice(folder: Path) -> None:
    """Build a program that says which kernels run on a processor with the features that its arguments name, the fastest first."""
    (folder / "choice.cpp").write_text(
        f"""#include <stdio.h>
#include <string.h>
static char** features;
static int has(const char* name) {{
    for (char** word = features; *word; word++)
        if (!strcmp(*word, name)) return 1;
    return 0;
}}
#define __builtin_cpu_supports(name) has(name)
#include "{build.HERE}/src/entry.cpp"
"""
        + "".join(map(NO_KERNEL.format, ("avx512", "avx2", "plain")))
        + """int main(int, char** words) {
    features = words + 1;
    for (int32_t kernel = 0; tgen_kernel_name(kernel); kernel++)
        if (tgen_kernel_runs(kernel)) puts(tgen_kernel_name(kernel));
}
"""
    )
    others = [str(build.HERE / "src" / name) for name in ("arena.cpp", "threads.cpp", "memory.cpp", "cache.cpp", "pages.cpp")]
    command = [
        "g++",
        "-std=c++17",
        "-pthread",
        f"-DTGEN_ABI={build.ABI}",
        str(folder / "choice.cpp"),
        *others,
        "-o",
        str(folder / CPU_CHOICE),
    ]
    subprocess.run(command, check=True)
