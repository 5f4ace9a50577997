"""Wheels, source archives and editable installations: the native library, the manual pages, and a machine without a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tgen.executors.native.build import LIBRARY, PROBLEM, system_compiler

ROOT = Path(__file__).parents[1]
NATIVE = "tgen/executors/native"
FOLDERS = ("tgen", "models")
FILES = ("pyproject.toml", "hatch_build.py", "hatch_manual.py", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore")
# What a plain `generate` finds of the native library.
LOADS = "from tgen.executors.native import library; print(library.load())"
PROBLEM_ALONE = "from tgen.executors.native import library; print(library.load().problem)"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no native executor for Windows"),
]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What a command prints on both streams, without this process's settings of compiler and build."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CXX", "TGEN_NATIVE", "PYTHONPATH")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that can build the package and has nothing else."""
    folder = tmp_path_factory.mktemp("builder")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    found = folder / "bin" / "python"
    run(found, "-m", "pip", "install", "-q", "hatchling", "editables", "typer", cwd=folder)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the source tree, as a checkout has it."""
    ignored = shutil.ignore_patterns("__pycache__", LIBRARY, PROBLEM)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    return tmp_path / "tree"


def wheel(python: Path, tree: Path, **variables: str) -> Path:
    """The wheel of a source tree, or of a source archive."""
    target = tree.parent / "wheels"
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", target, tree, cwd=tree.parent, **variables)
    (found,) = target.glob("*.whl")
    return found


def unpacked(found: Path) -> tuple[Path, set[str], str]:
    """A wheel's content: where it lies, the names of its files, and its metadata."""
    folder = found.parent / "content"
    with zipfile.ZipFile(found) as archive:
        archive.extractall(folder)
        names = set(archive.namelist())
    (metadata,) = folder.glob("*.dist-info/METADATA")
    return folder, names, metadata.read_text("utf-8")


def needs_torch(metadata: str) -> bool:
    return re.search(r"^Requires-Dist: torch[^;]*$", metadata, re.MULTILINE) is not None


def test_a_wheel_of_a_source_archive_has_the_library(python: Path, tree: Path) -> None:
    if system_compiler() is None:
        pytest.skip("there is no compiler")
    run(python, "-m", "hatchling", "build", "-t", "sdist", cwd=tree)
    (source,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert f"{NATIVE}/src/entry.cpp" in names
    assert f"{NATIVE}/{LIBRARY}" not in names
    found = wheel(python, source)
    assert re.search(r"-py3-none-(linux|macosx)_", found.name)
    folder, names, metadata = unpacked(found)
    assert f"{NATIVE}/{LIBRARY}" in names
    assert f"{NATIVE}/{PROBLEM}" not in names
    assert {f"tgen/server/page/{path.name}" for path in (ROOT / "tgen" / "server" / "page").iterdir()} <= names
    assert sum("/share/man/man1/tgen" in name for name in names) == 19
    assert not needs_torch(metadata)
    assert "CDLL" in run(sys.executable, "-c", LOADS, cwd=folder)


@pytest.mark.parametrize("how", ["no compiler", "a broken source", "left out"])
def test_without_the_library_a_wheel_is_pure_and_needs_torch(python: Path, tree: Path, how: str) -> None:
    variables = {"no compiler": {"CXX": "/nowhere/c++"}, "left out": {"TGEN_NATIVE": "0"}}.get(how, {})
    if how == "a broken source":
        if system_compiler() is None:
            pytest.skip("there is no compiler")
        for source in (tree / NATIVE / "src").rglob("*.cpp"):
            source.unlink()
        (tree / NATIVE / "src" / "entry.cpp").write_text("this is no C++;\n")
    found = wheel(python, tree, **variables)
    assert found.name.endswith("-py3-none-any.whl")
    folder, names, metadata = unpacked(found)
    assert f"{NATIVE}/{LIBRARY}" not in names
    assert needs_torch(metadata)
    reason = {"no compiler": "no working C++ compiler", "a broken source": "its compilation failed: ", "left out": "is not built"}[how]
    assert reason in run(sys.executable, "-c", PROBLEM_ALONE, cwd=folder)


def test_an_editable_installation_compiles_in_place(python: Path, tree: Path) -> None:
    if system_compiler() is None:
        pytest.skip("there is no compiler")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", tree, cwd=tree.parent)
    assert "CDLL" in run(sys.executable, "-c", LOADS, cwd=tree)
    (tree / NATIVE / LIBRARY).write_bytes(b"damaged")
    assert "does not load" in run(sys.executable, "-c", PROBLEM_ALONE, cwd=tree)
    said = run(sys.executable, "-m", "tgen.executors.native.build", cwd=tree)
    assert "entry.cpp" in said
    assert said.endswith(f"{LIBRARY}\n")
    assert "CDLL" in run(sys.executable, "-c", LOADS, cwd=tree)
    older = (tree / NATIVE / "build.py").read_text("utf-8")
    (tree / NATIVE / "build.py").write_text(re.sub(r"^ABI = \d+$", "ABI = 999", older, flags=re.MULTILINE), "utf-8")
    assert "needs 999" in run(sys.executable, "-c", PROBLEM_ALONE, cwd=tree)


def test_the_compiler_from_pypi(python: Path, tree: Path) -> None:
    """Pip installs it into the build's own environment, because no other compiler works."""
    target = tree.parent / "wheels"
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, tree, cwd=tree.parent, CXX="/nowhere/c++")
    (found,) = target.glob("*.whl")
    assert not (tree / NATIVE / LIBRARY).exists(), "nothing is left in the tree"
    folder, names, _ = unpacked(found)
    assert f"{NATIVE}/{LIBRARY}" in names
    assert "CDLL" in run(sys.executable, "-c", LOADS, cwd=folder)
