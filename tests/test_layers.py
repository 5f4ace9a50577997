"""The architecture, checked: who may import whom, and how long files and functions may be."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tgen"
RANKS = {
    "cli": 10,
    "server": 9,
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
    "values": 0,
    "environment": 0,
    "events": 0,
    "errors": 0,
    "files": 0,
    "gguf_header": 0,
    "arrays": 0,
}
# Inside a folder, a file imports only from files that stand before it.
ORDER = {
    "spec": ["positions", "recurrent", "streams", "records", "shapes", "cache"],
    "checkpoint": [
        *["stored", "bins", "safetensors", "quantised", "gguf", "matching", "purpose", "hub", "resolve", "adapters", "container"],
        *["mapped", "digests", "generation"],
    ],
    "checkpoint/adapters": ["config", "opening", "tensors"],
    "checkpoint/hub": ["cache", "choice", "pull"],
    "checkpoint/gguf": ["tables", "parts", "blocks", "architectures", "config", "tensors", "file"],
    "executors": ["session", "formats", "frequencies", "torch", "native", "measure", "open"],
    "executors/native": [
        *["build", "interface", "library", "weights", "panels", "packing", "packed_cache", "tables"],
        *["program", "model", "forecast", "session", "open"],
    ],
    "executors/torch": [
        *["cache", "norms", "positions", "forward_pass", "attention", "mixers", "layers", "transformer", "decode"],
        *["placement", "load", "save", "reading", "session", "maps"],
    ],
    "executors/torch/decode": ["static_cache", "captured"],
    "sampling": [
        *["logits", "selection", "candidates", "nucleus", "mirostat", "filters", "wording", "penalties", "dry", "rules", "adjustment"],
        *["rejection", "sampler"],
    ],
    "constraint": ["spelling", "keywords", "pattern", "schema", "grammar", "place", "planner", "guard"],
    "engine": [
        *["request", "prefix", "shared", "guess", "draft", "job", "sample", "pace", "scheduler", "beam"],
        *["generator", "opening", "prompt_cache"],
    ],
    "wire": ["encoding", "events", "requests", "tools", "records", "chunks", "responses", "result", "inspection"],
    "batch": ["lines", "journal", "answering", "cluster", "run"],
    "server": [
        *["problems", "sending", "static", "guard", "mailbox", "wakeups", "worker", "models", "metrics", "calls", "endpoints", "app"],
        *["protocol", "listening"],
    ],
    "server/endpoints": [
        *["about", "generating", "completions", "chats", "plain", "embeddings", "tokens", "bodies", "borrowed", "inspecting"],
        "resident",
    ],
}
MOST_FILES = 14
SOURCES = {".py", ".cpp", ".h", ".html", ".css", ".js"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
FREE = {Path("__init__.py"), Path("__main__.py")}


@functools.cache
def parse(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text("utf-8"))


def imported(tree: ast.AST) -> Iterator[list[str]]:
    """The parts of the module that each import takes from tgen, inside functions too; relative imports are not used here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [f"tgen.{alias.name}" for alias in node.names] if node.module == "tgen" else [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.startswith("tgen."))


def test_imports_go_down() -> None:
    """A module imports from a strictly lower rank or from its own folder."""
    for module in set(MODULES) - FREE:
        own = module.parts[0].removesuffix(".py")
        for other, *_ in imported(parse(module)):
            if other.startswith("__"):
                continue  # the version
            assert other == own or RANKS[other] < RANKS[own] or RANKS[other] == RANKS[own] == 0, f"{module} imports {other}"


@pytest.mark.parametrize("folder", ORDER)
def test_imports_go_down_inside_folders(folder: str) -> None:
    """Every file has its place in the order, and imports only what stands before it."""
    order, parts = ORDER[folder], folder.split("/")
    names = {path.stem for path in (PACKAGE / folder).iterdir() if path.suffix == ".py" or any(path.glob("*.py"))} - {"__init__"}
    assert names == set(order)
    for module in MODULES:
        if list(module.parts[: len(parts)]) != parts or module.stem == "__init__":
            continue
        own = module.parts[len(parts)].removesuffix(".py")
        for other in imported(parse(module)):
            if other[: len(parts)] == parts and len(other) > len(parts) and other[len(parts)] != own:
                assert order.index(other[len(parts)]) < order.index(own), f"{folder}/{own} imports {other[len(parts)]}"


def test_no_folder_is_crowded() -> None:
    """Families and commands are lists; any other folder with more files than this is two."""
    sources = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.suffix in SOURCES]
    for folder in {source.parent for source in sources} - {Path("families"), Path("cli")}:
        assert sum(source.parent == folder for source in sources) <= MOST_FILES, folder


def test_files_and_functions_are_short() -> None:
    """A signature does not count: that of a command is its list of options."""
    for module in MODULES:
        assert len((PACKAGE / module).read_text("utf-8").splitlines()) < 400, module
        for node in ast.walk(parse(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.body[0].lineno + 1 < 60, f"{module}: {node.name}"


def test_modules_say_what_they_are() -> None:
    for module in MODULES:
        tree = parse(module)
        assert ast.get_docstring(tree) or not tree.body, module
