"""Adds to the wheel what is not in the source tree: the native executor's library, and the manual pages.

Without a compiler the wheel is pure Python, needs torch, and runs on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

FOLDER = "tgen/executors/native"
MANUAL, PAGES = "hatch_manual.py", "share/man/man1"
ZIG = "ziglang>=0.13; platform_machine in 'x86_64 aarch64 arm64' and sys_platform in 'linux darwin'"


class BuiltFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles for a wheel, and in place for an editable installation. TGEN_NATIVE=0 leaves the library out."""

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling: typer, which knows the options, and a compiler if none here works."""
        if self.target_name != "wheel":
            return []
        typer = [one for one in self.metadata.core.dependencies if one.startswith("typer")]
        return typer if self._left_out() or self._build_module().system_compiler() else [*typer, ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the pages to the wheel, and the library or the file that says why there is none."""
        if self.target_name != "wheel":
            return
        self._work = tempfile.TemporaryDirectory()
        self._write_manual(build_data)
        if self._left_out():
            self._need_torch(build_data)
            return
        build = self._build_module()
        folder = Path(self.root, FOLDER) if version == "editable" else Path(self._work.name)
        problem = build.build(folder)
        if problem:
            self.app.display_warning(f"tgen is installed without its native executor: {problem}")
            self._need_torch(build_data)
        else:
            platform = next(tag.platform for tag in sys_tags() if "manylinux" not in tag.platform and "musllinux" not in tag.platform)
            build_data |= {"pure_python": False, "tag": f"py3-none-{platform}"}
        if version != "editable":
            name = build.PROBLEM if problem else build.LIBRARY
            build_data["force_include"][str(folder / name)] = f"{FOLDER}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was made outside the wheel."""
        if self.target_name == "wheel":
            self._work.cleanup()

    def _write_manual(self, build_data: dict[str, Any]) -> None:
        folder = Path(self._work.name, "man")
        folder.mkdir()
        done = subprocess.run([sys.executable, "-B", Path(self.root, MANUAL), folder], capture_output=True, text=True)
        if done.returncode:
            self.app.display_warning(f"tgen is installed without its manual pages: {done.stderr}")
        build_data["shared_data"] |= {str(page): f"{PAGES}/{page.name}" for page in folder.glob("*.1")}

    def _need_torch(self, build_data: dict[str, Any]) -> None:
        build_data["dependencies"] += self.metadata.core.optional_dependencies["torch"]

    def _left_out(self) -> bool:
        return os.environ.get("TGEN_NATIVE") == "0"

    def _build_module(self) -> ModuleType:
        """tgen/executors/native/build.py, without importing tgen, whose dependencies are not here."""
        spec = spec_from_file_location("tgen_native_build", Path(self.root, FOLDER, "build.py"))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
