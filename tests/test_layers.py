"""The architecture, checked: who may import whom, and how long files and functions may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tgen"
RANKS = {
    "cli": 9,
    "server": 8,
    "batch": 8,
    "wire": 7,
    "tasks": 7,
    "train": 7,
    "engine": 6,
    "sampling": 5,
    "constraint": 5,
    "executors": 4,
    "checkpoint": 3,
    "text": 3,
    "families": 2,
    "ui": 1,
    "spec": 0,
    # The modules at the top, which count as one folder.
    "options": 0,
    "declaration": 0,
    "events": 0,
    "errors": 0,
    "files": 0,
    "arrays": 0,
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
FREE = {Path("__init__.py"), Path("__main__.py")}

every_module = pytest.mark.parametrize("module", MODULES, ids=str)


def parse(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text("utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The part of tgen that each import takes from, inside functions too; relative imports are not used here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [f"tgen.{alias.name}" for alias in node.names] if node.module == "tgen" else [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("tgen."))


@every_module
def test_imports_go_down(module: Path) -> None:
    """A module imports from a strictly lower rank or from its own folder."""
    if module in FREE:
        return
    own = module.parts[0].removesuffix(".py")
    for other in imported(parse(module)):
        if other.startswith("__"):
            continue  # the version
        assert other == own or RANKS[other] < RANKS[own] or RANKS[other] == RANKS[own] == 0, f"{own} imports {other}"


@every_module
def test_files_and_functions_are_short(module: Path) -> None:
    """A signature does not count: that of a command is its list of options."""
    assert len((PACKAGE / module).read_text("utf-8").splitlines()) < 400
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.body[0].lineno + 1 < 60, node.name


@every_module
def test_modules_say_what_they_are(module: Path) -> None:
    tree = parse(module)
    assert ast.get_docstring(tree) or not tree.body
