"""`python -m tests.executors.native.sanitizers [--folder FOLDER] KIND [COMMAND ...]`: run Python with the native library under a sanitizer.

KIND is `address`, `undefined` or `thread`; the command is what stands after `python`, by default the tests of
the native executor. `-m tests.fuzz --kinds native --count 5000` is another one worth running. The exit code is the command's, or 1 for a
report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.executors.native.variants import LIBRARY, build_library
from tgen.executors.native.build import HERE
from tgen.executors.native.build import LIBRARY as FILE

DEFAULT = ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "tests/executors/native", "-m", "not long"]


@dataclass(frozen=True, slots=True)
class Sanitizer:
    """Flags of gcc, the runtime library that Python must load first, and the options of the runtime."""

    flags: str
    runtime: str
    options: dict[str, str]

    def environment(self, reports: Path) -> dict[str, str]:
        """Variables for a process that loads a library built with the flags; reports go to files that start with this path."""
        options = {name: f"{value}:log_path={reports}" for name, value in self.options.items()}
        return {**os.environ, **options, "OMP_NUM_THREADS": "1"}

    @property
    def compiler(self) -> str:
        """gcc with the flags. What it says about lines is enough, and what it says about variables takes it minutes."""
        return f"g++ -fsanitize={self.flags} -fno-omit-frame-pointer -g1 -fno-var-tracking"


# The driver looks for leaks: Python frees little at its end. Torch and NumPy are not built for the thread sanitizer, so its reports on them
# alone mean nothing.
SANITIZERS = {
    "address": Sanitizer(
        "address", "libasan.so", {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16:malloc_context_size=4"}
    ),
    "undefined": Sanitizer("undefined", "libubsan.so", {"UBSAN_OPTIONS": "print_stacktrace=1"}),
    "thread": Sanitizer("thread", "libtsan.so", {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:report_thread_leaks=0:exitcode=0"}),
}


def missing() -> str | None:
    """Why no sanitizer can be used here; None if one can."""
    if sys.platform != "linux":
        return "the sanitizers need Linux"
    return "the sanitizers need g++" if shutil.which("g++") is None else None


def runtime(sanitizer: Sanitizer) -> str:
    """The file of a sanitizer's runtime."""
    found = subprocess.run(["g++", f"-print-file-name={sanitizer.runtime}"], check=True, capture_output=True, text=True).stdout.strip()
    return str(Path(found).resolve())


def build(sanitizer: Sanitizer, folder: Path, root: Path = HERE) -> None:
    """Build the library from the sources under `root`, unless the folder has it."""
    if not (folder / FILE).exists():
        build_library(folder, sanitizer.compiler, speed="-O1", root=root)


def run(sanitizer: Sanitizer, folder: Path, command: list[str]) -> tuple[int, list[str]]:
    """Run Python with a library; its exit code, and the reports."""
    with tempfile.TemporaryDirectory() as place:
        variables = sanitizer.environment(Path(place, "report"))
        code = subprocess.run(
            [sys.executable, *command], env={**variables, "LD_PRELOAD": runtime(sanitizer), LIBRARY: str(folder)}
        ).returncode
        return code, [path.read_text(errors="replace") for path in sorted(Path(place).iterdir())]


def main() -> int:
    """Build, run, show the reports."""
    parser = argparse.ArgumentParser(prog="python -m tests.executors.native.sanitizers", description=__doc__)
    parser.add_argument("kind", choices=SANITIZERS)
    parser.add_argument("--folder", type=Path, help="keep the library here, and use it if it is there [default: a temporary folder]")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what stands after `python`")
    options = parser.parse_args()
    if problem := missing():
        parser.error(problem)
    sanitizer = SANITIZERS[options.kind]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        build(sanitizer, folder)
        code, reports = run(sanitizer, folder, options.command or DEFAULT)
    for report in reports:
        print(report)
    print(f"{len(reports)} report{'s' * (len(reports) != 1)} of the {options.kind} sanitizer, exit code {code}")
    return code or int(bool(reports))


if __name__ == "__main__":
    sys.exit(main())
