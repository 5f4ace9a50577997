"""`tgen pull` and `tgen models --remove`, against a hub on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoint.hub_server import COMMIT, Hub, serving
from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, environment
from tests.conftest import GOLDEN
from tgen.checkpoint.hub.cache import UNFINISHED
from tgen.checkpoint.resolve import resolve

WEIGHTS = "model.safetensors"


def golden_files(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (GOLDEN / name).iterdir() if path.suffix != ".npz"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the golden gpt2 as org/small, and an empty cache."""
    with serving(Hub({"org/small": golden_files("gpt2")})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def test_a_pulled_model_runs_by_its_name(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    folder = Path(ask("pull", "org/small").out.strip())
    assert folder == tmp_path / "hub/models--org--small/snapshots" / COMMIT == resolve("org/small")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.repositories["org/small"]
    assert (folder.parents[1] / "refs/main").read_text() == COMMIT
    asked = len(hub.requests)
    assert ask("generate", "a", "-n", "2", "--seed", "1", "-m", "org/small").out
    assert "org/small" in ask("models").out
    assert len(hub.requests) == asked  # no other command asks the hub
    ask("pull", "org/small")
    assert len(hub.requests) == asked + 1  # the listing


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    "name", ["./small", "../small", "a--b", "org/.small", "org/small.", "a/b/c", "https://x.y/org/small", "org/" + "s" * 100]
)
def test_what_is_no_name_of_the_hub(name: str, ask: Ask) -> None:
    said = ask("pull", name, code=2).err
    assert f"error: {name!r} is not the name of a model on the hub\nhint: give ORG/NAME" in said
    if name.startswith("."):
        assert "tgen pull" not in ask("info", name, code=3).err


@pytest.mark.usefixtures("hub")
def test_a_revision_has_a_name_of_its_own(ask: Ask) -> None:
    ask("pull", "org/small@v2")
    assert resolve("org/small@v2") == resolve("org/small") == resolve(f"org/small@{COMMIT}")
    assert "no model 'org/small@v3'" in ask("info", "org/small@v3", code=3).err


def test_only_what_a_run_needs_is_fetched(hub: Hub, ask: Ask) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    needed = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors.index.json", "model-1.safetensors"}
    needed |= {"model-2.safetensors", "modules.json", "2_Dense/model.safetensors", "1_Pooling/config.json"}
    others = ["pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "model.q4.gguf", "model.q8.gguf", "README.md"]
    others += ["2_Dense/pytorch_model.bin", "flax_model.msgpack", "training_args.bin"]
    hub.repositories["org/full"] = {name: name.encode() for name in (*needed, *others)}
    hub.repositories["org/full"]["model.safetensors.index.json"] = json.dumps(index).encode()
    ask("pull", "org/full")
    assert set(hub.asked_for()) == needed
    assert hub.asked_for()[-1] == "config.json"  # until it is there, nothing takes the folder for a model
    ask("pull", "org/full", "--include", "*.q4.gguf", "--include", "onnx/*")
    assert set(hub.asked_for()) == needed | {"model.q4.gguf", "onnx/model.onnx"}
    assert "no file fits --include *.q5" in ask("pull", "org/full", "--include", "*.q5", code=3).err


def test_bins_are_fetched_where_there_is_nothing_else(hub: Hub, ask: Ask) -> None:
    hub.repositories["org/old"] = {"config.json": b"{}", "pytorch_model.bin": b"x", "rust_model.ot": b"y"}
    ask("pull", "org/old", "-q")
    assert set(hub.asked_for()) == {"config.json", "pytorch_model.bin"}


def test_an_adapter_names_its_base(hub: Hub, ask: Ask) -> None:
    config = json.dumps({"base_model_name_or_path": "org/small"}).encode()
    hub.repositories["org/way"] = {"adapter_config.json": config, "adapter_model.safetensors": b"x", "adapter_model.bin": b"y"}
    assert "`tgen pull org/small` fetches that" in ask("pull", "org/way").err
    assert set(hub.asked_for()) == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("org/none", 3, ["the hub has no model org/none, or it is private", "HF_TOKEN"]),
        ("org/gated", 3, ["org/gated is gated", "accept the terms at http://", "HF_TOKEN"]),
        ("org/small@v9", 3, ["org/small has no revision v9"]),
        ("org/dataset", 3, ["cannot pull org/dataset: it holds no model that tgen reads: no config.json", "it holds data.csv"]),
        ("org/quantised", 3, ["it holds no weights that tgen reads", "model.gguf", "--include"]),
        ("../etc", 2, ["'../etc' is not the name of a model on the hub"]),
        ("a/b/c", 2, ["'a/b/c' is not the name"]),
        ("org/small@../../x", 2, ["is not the name"]),
    ],
)
def test_what_cannot_be_had_is_explained(hub: Hub, ask: Ask, name: str, code: int, words: list[str]) -> None:
    hub.gated.add("org/gated")
    hub.repositories |= {"org/dataset": {"data.csv": b"x"}, "org/quantised": {"config.json": b"{}", "model.gguf": b"x"}}
    err = ask("pull", name, code=code).err
    assert [word for word in words if word not in err] == [], err


def test_a_hub_that_is_away_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "cannot reach http://127.0.0.1:9: " in ask("pull", "org/small", code=1).err


def test_a_file_outside_the_folder_is_left_out(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    hub.repositories["org/small"]["../../../../evil.json"] = b"x"
    ask("pull", "org/small", "--include", "*.json")
    assert not any("evil" in path.name for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_content_is_an_error(hub: Hub, ask: Ask, tmp_path: Path, name: str) -> None:
    """It leaves nothing that a run could take for the model, and the next pull gets the file again."""
    hub.wrong.add(name)
    assert f"the content of {name} does not match the digest that the hub names" in ask("pull", "org/small", code=3).err
    assert "no model 'org/small'" in ask("info", "org/small", code=3).err
    assert not list(tmp_path.rglob(f"*{UNFINISHED}"))
    hub.wrong.clear()
    ask("pull", "org/small")
    ask("info", "org/small")


@pytest.mark.parametrize("name", ["org/a--b", "org/.x", "org/name.git", "o" * 120])
@pytest.mark.usefixtures("hub")
def test_a_name_that_no_hub_takes_is_refused(ask: Ask, name: str) -> None:
    err = ask("pull", name, code=2).err
    assert f"{name!r} is not the name of a model on the hub" in err and "bug" not in err


def test_a_busy_hub_is_asked_again(hub: Hub, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says in one line what it answered in the end."""
    monkeypatch.setattr("tgen.checkpoint.hub.pull.PAUSE", 0.0)
    hub.failing = {WEIGHTS: [503, 429, 500], "config.json": [502]}
    assert ask("pull", "org/small").err.count("\n") == 1
    hub.repositories["org/other"] = {**golden_files("gpt2"), WEIGHTS: b"other"}
    hub.failing = {WEIGHTS: [500] * 5}
    err = ask("pull", "org/other", code=1).err
    assert err.startswith("error: the hub answered org/other with status 500\nhint: ") and err.count("\n") == 2
    ask("pull", "org/other")
    hub.repositories["org/third"] = {**golden_files("gpt2"), WEIGHTS: b"third"}
    hub.failing = {WEIGHTS: [401] * 5}
    assert "status 401" in ask("pull", "org/third", code=1).err and len(hub.failing[WEIGHTS]) == 4  # asked once


def test_a_file_that_is_listed_and_missing_is_named(hub: Hub, ask: Ask) -> None:
    hub.failing = {WEIGHTS: [404]}
    assert "cannot pull org/small: the hub lists model.safetensors, but does not have it" in ask("pull", "org/small", code=3).err


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (b"<html>log in</html>", "does not answer like a hub"),
        (b"[]", "does not answer like a hub"),
        (b'{"id": "org/small", "siblings": []}', "does not answer like a hub"),
        (b'{"id": "org/small", "sha": "../../x", "siblings": []}', "does not answer like a hub"),
        (
            json.dumps({"id": "org/small", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}, {"rfilename": WEIGHTS}]}).encode(),
            "the hub names no digest of model.safetensors",
        ),
    ],
)
def test_a_server_that_is_no_hub_is_noticed(hub: Hub, ask: Ask, listing: bytes, words: str) -> None:
    """A page that asks for a login, or a mirror that leaves out what files contain."""
    hub.listing = listing
    assert words in ask("pull", "org/small", code=1).err


@pytest.mark.usefixtures("hub")
def test_models_are_removed(ask: Ask, tmp_path: Path) -> None:
    ask("pull", "org/small")
    assert "add --yes" in ask("models", "--remove", "org/small", code=2).err
    assert resolve("org/small")
    assert "MB" in ask("models", "--remove", "org/small", "--yes").err
    assert not list((tmp_path / "hub").glob("models--*")) and not list((tmp_path / "hub/.locks").iterdir())
    assert "has no model 'org/small'" in ask("models", "--remove", "org/small", "--yes", code=2).err
    assert "is shipped with tgen, and stays" in ask("models", "--remove", "storyteller", "--yes", code=2).err
    assert "--yes is for --remove" in ask("models", "--yes", code=2).err


def _sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{UNFINISHED}"))


@pytest.mark.long
def test_a_pull_killed_three_times_goes_on(hub: Hub, ask: Ask, tmp_path: Path) -> None:
    data = os.urandom(4 * 2**20)
    hub.repositories["org/small"]["extra.safetensors"] = data
    hub.pause = 0.01
    cache = tmp_path / "hub"
    for number in range(3):
        before = _sizes(cache)
        process = subprocess.Popen(
            [TGEN, "pull", "org/small", "--include", "extra*"],
            env=environment(HF_ENDPOINT=hub.address, HF_HUB_CACHE=str(cache)),
            start_new_session=True,
        )
        until = time.monotonic() + 60
        while _sizes(cache) < before + 2**19 and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, number
        assert "no model 'org/small'" in ask("info", "org/small", code=3).err
    hub.pause = 0
    kept = _sizes(cache)
    said = ask("pull", "org/small", "--include", "extra*")
    folder = Path(said.out.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.repositories["org/small"]
    starts = [start for path, start in hub.requests if path.endswith("/extra.safetensors") and "/cdn/" in path]
    assert len(starts) == 4 and starts == sorted(set(starts)) and starts[-1] == kept >= 3 * 2**19
