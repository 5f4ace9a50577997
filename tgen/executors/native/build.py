"""Compiles the native executor's library; `python -m tgen.executors.native.build` does so in place.

It imports only the standard library, because the build of the package runs this file before tgen or any other package is installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

# The version of the library's interface. Whoever changes the interface changes it, so that an older library is not used.
ABI = 12
HERE = Path(__file__).parent
LIBRARY, PROBLEM = "libtgen.so", "not_built.txt"
FLAGS = [*"-O3 -std=c++17 -fno-exceptions -fno-rtti -ffp-contract=off -fPIC -pthread".split(), f"-DTGEN_ABI={ABI}"]
X86 = ("x86_64", "amd64")
ARM = ("aarch64", "arm64")
# The kernels that only one kind of machine has, and their further flags. The library chooses a kernel when it runs.
MACHINE_FLAGS = {
    "avx512": (X86, "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mfma -mf16c"),
    "avx2": (X86, "-mavx2 -mfma -mf16c"),
    "neon": (ARM, "-march=armv8.2-a+dotprod+fp16"),
}
PROBE = '#include <atomic>\n#include <cmath>\n#include <cstdint>\n#include <cstring>\nextern "C" int probe() { return 0; }\n'


class Compiler:
    """A command that compiles and links C++."""

    def __init__(self, compile_command: Sequence[str], link_command: Sequence[str], spelling: Mapping[str, str] | None = None) -> None:
        """`spelling` maps a flag to this compiler's own spelling of it."""
        self._compile, self._link, self._spelling = compile_command, link_command, spelling or {}

    def compile(self, source: Path, target: Path, further: str, show: bool = False) -> None:
        """Compile one file. Raises CalledProcessError, OSError."""
        words = [self._spelling.get(word, word) for word in further.split()]
        _run([*self._compile, *FLAGS, *words, "-c", str(source), "-o", str(target)], show)

    def link(self, objects: Sequence[Path], target: Path, show: bool = False) -> None:
        """Make the library. Raises CalledProcessError, OSError."""
        unused = [] if sys.platform == "darwin" else ["-Wl,--as-needed"]  # omits the C++ runtime, which no source uses
        _run([*self._link, "-shared", "-pthread", *unused, "-o", str(target), *map(str, objects), "-lm"], show)

    def works(self) -> bool:
        """Whether the command compiles with all flags that this machine's sources need, and links."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "probe.cpp"), Path(folder, "probe.o")
            source.write_text(PROBE)
            try:
                for machines, flags in MACHINE_FLAGS.values():
                    if _machine() in machines:
                        self.compile(source, target, flags)
                self.compile(source, target, "")
                self.link([target], Path(folder, LIBRARY))
            except (OSError, subprocess.CalledProcessError):
                return False
        return True


def system_compiler() -> Compiler | None:
    """$CXX if it is set, else the first compiler found that works; None if there is none."""
    asked = os.environ.get("CXX")
    for command in [asked] if asked else ["c++", "g++", "clang++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]) and (found := Compiler(words, words)).works():
            return found
    return None


def zig_compiler() -> Compiler | None:
    """The compiler of the ziglang package, which pip can install anywhere; None if it is not installed or does not work.

    The flags keep it from using every instruction of this very processor. It links with `zig cc`, because `zig c++` would first compile its
    own C++ runtime, which takes a minute.
    """
    if find_spec("ziglang") is None:
        return None
    zig = [sys.executable, "-m", "ziglang"]
    baseline = ["-mcpu=baseline", "-fno-sanitize=undefined"]
    arm = {"-march=armv8.2-a+dotprod+fp16": "-mcpu=generic+v8_2a+dotprod+fullfp16"}
    found = Compiler([*zig, "c++", *baseline], [*zig, "cc", *baseline], arm)
    return found if found.works() else None


def build(folder: Path, show: bool = False) -> str | None:
    """Put the library into a folder. If that fails, put a file there that says why, and return the reason in one line."""
    problem = _try_to_build(folder / LIBRARY, show)
    (folder / PROBLEM).unlink(missing_ok=True)
    if problem is not None:
        (folder / LIBRARY).unlink(missing_ok=True)
        (folder / PROBLEM).write_text(problem, "utf-8")
    return problem


def _try_to_build(library: Path, show: bool) -> str | None:
    if sys.platform == "win32":
        return "there is none for Windows"
    compiler = system_compiler() or zig_compiler()
    if compiler is None:
        return "no working C++ compiler was found when tgen was installed"
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [(source, Path(work, source.stem + ".o"), flags) for source, flags in _sources()]
        try:
            list(pool.map(lambda part: compiler.compile(part[0], part[1], part[2], show), parts))
            linked = Path(work, LIBRARY)
            compiler.link([target for _, target, _ in parts], linked, show)
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            if show:
                sys.stderr.write(said)
            lines = [line for line in said.splitlines() if "error" in line] or said.splitlines() or ["no message"]
            return f"its compilation failed: {lines[0].strip()}"
        # The new library is renamed into its place, so that a process that has the old one open keeps it.
        beside = library.with_suffix(".partial")
        shutil.copy(linked, beside)
        beside.replace(library)
    return None


def _sources() -> Iterator[tuple[Path, str]]:
    """The sources for this machine, and the further flags of each; those that take longest to compile come first."""
    for source in sorted((HERE / "src").rglob("*.cpp"), key=lambda path: -path.stat().st_size):
        machines, flags = MACHINE_FLAGS.get(source.stem, ((_machine(),), ""))
        if _machine() in machines:
            yield source, flags


def _machine() -> str:
    return platform.machine().lower()


def _run(command: Sequence[str], show: bool) -> None:
    if show:
        sys.stdout.write(shlex.join(command) + "\n")
        sys.stdout.flush()
    subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")


if __name__ == "__main__":
    failed = build(HERE, show=True)
    if failed:
        sys.exit(f"error: {failed}")
    sys.stdout.write(f"{HERE / LIBRARY}\n")
