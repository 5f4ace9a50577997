"""Names that a user types lead to the right folder, and writing leaves files complete or absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tgen
from tests.conftest import GOLDEN
from tgen.checkpoint.resolve import found_models, resolve
from tgen.errors import CheckpointError
from tgen.files import write_atomically, write_text


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models with one called fables, and a Hugging Face cache with org/tales."""
    for name in ("models/fables", "hub/models--org--tales/snapshots/new", "hub/models--org--tales/snapshots/old", "hub/models--org--empty"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    (tmp_path / "hub/models--org--tales/refs").mkdir()
    (tmp_path / "hub/models--org--tales/refs/main").write_text("new\n")
    monkeypatch.setattr("tgen.checkpoint.resolve.shipped_folder", lambda: tmp_path / "models")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_found(shipped: Path) -> None:
    assert [(model.name, model.origin) for model in found_models()] == [("fables", "shipped"), ("org/tales", "cache")]
    assert resolve("fables") == shipped / "models/fables"
    assert resolve("org/tales") == shipped / "hub/models--org--tales/snapshots/new"
    assert resolve(str(GOLDEN / "gpt2")) == GOLDEN / "gpt2"


def test_an_empty_name_is_no_folder() -> None:
    """As a path, it would be the current folder."""
    with pytest.raises(CheckpointError, match="the model's name is empty"):
        tgen.load("")


@pytest.mark.usefixtures("shipped")
def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fables").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("fables") == Path("fables")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fable", "fables"),
        ("ORG/Tales", "org/tales"),
        ("Org/tale", "org/tales"),
        ("meta/llama-7b", "Meta/LLaMA-7B"),
        ("META/LLAMA", "Meta/LLaMA-7B"),
    ],
)
def test_an_unknown_name_names_the_nearest_whatever_the_case(shipped: Path, name: str, nearest: str) -> None:
    other = shipped / "hub/models--Meta--LLaMA-7B/snapshots/one"
    other.mkdir(parents=True)
    (other / "config.json").touch()
    with pytest.raises(CheckpointError, match=f"no model '{name}'") as caught:
        resolve(name)
    pull = f"; `tgen pull {name}` fetches it from the hub" if "/" in name else ""
    assert caught.value.hint == f"nearest: {nearest}; `tgen models` lists them{pull}"


@pytest.mark.parametrize(("file", "hint"), [("model.safetensors", "give the folder"), ("config.json", "or a GGUF file")])
def test_a_file_is_no_folder(file: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match="is a file, not a model folder") as caught:
        resolve(str(tmp_path / file))
    assert hint in str(caught.value.hint)


def fail(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


@pytest.mark.parametrize("before", [None, "old"])
def test_a_write_that_fails_leaves_what_was_there(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if before is not None:
        write_text(path, before)
    writer: Callable[[Path], None] = fail
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, writer)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == ([] if before is None else [("file", before)])


@pytest.mark.parametrize("name", ["~nobody-here/model", "a" * 5000, "a\0b"])
def test_what_cannot_be_a_path_is_no_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An impossible path is no model's name and no cache folder."""
    with pytest.raises(CheckpointError, match="no model"):
        resolve(name)
    if "\0" not in name:
        monkeypatch.setenv("HF_HUB_CACHE", name)
        monkeypatch.setenv("HF_HOME", name)
        assert {model.origin for model in found_models()} <= {"shipped", "cache"}
