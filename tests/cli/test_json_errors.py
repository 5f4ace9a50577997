"""Under --json an error is also one JSON object on stderr, for every command that has --json."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from typer.main import get_command

from tests.cli.conftest import Ask
from tests.cli.processes import golden, tgen
from tgen.cli.main import make_app, run
from tgen.errors import CapacityError, CheckpointError, MemoryLimitError, TgenError, UnsupportedError, UsageError
from tgen.sampling.logits import NumericalError
from tgen.ui import messages

WITH_JSON = sorted(
    name
    for name, command in get_command(make_app()).commands.items()  # type: ignore[attr-defined]
    if any("--json" in parameter.opts for parameter in command.params)
)
TEXT = {"fill": "a [MASK]", "tokenize": "a", "score": "a b", "generate": "a", "explain": "a", "attention": "a b"}


def object_of(err: str) -> Any:
    """The one JSON object, which comes after the lines for people."""
    error, hint, last = err.splitlines()
    found = json.loads(last)
    assert list(found) == ["error"]
    assert list(found["error"]) == ["message", "hint", "type", "exit_code"]
    assert [f"error: {found['error']['message']}", f"hint: {found['error']['hint']}"] == [error, hint]
    return found["error"]


def test_these_commands_have_it() -> None:
    assert sorted([*TEXT, "bench", "config", "info", "models"]) == WITH_JSON


@pytest.mark.parametrize("command", WITH_JSON)
def test_a_mistake_in_the_options(ask: Ask, command: str) -> None:
    said = ask(command, "--json", "--zzz", code=2)
    assert object_of(said.err) == {
        "message": "no such option: --zzz",
        "hint": f"`tgen {command} --help` explains its use",
        "type": "usage",
        "exit_code": 2,
    }
    assert not said.out


@pytest.mark.parametrize("command", [name for name in WITH_JSON if name not in ("config", "models")])
def test_a_model_that_is_not_there(ask: Ask, command: str) -> None:
    said = ask(command, *([TEXT[command]] if command in TEXT else []), "-m", "nowhere", "--json", code=3)
    found = object_of(said.err)
    assert found["message"].startswith("no model 'nowhere'")
    assert (found["type"], found["exit_code"]) == ("model", 3)


def test_a_prompt_that_does_not_fit_and_a_folder_without_a_tokenizer(ask: Ask, copy_golden: Any) -> None:
    assert object_of(ask("generate", "x" * 900, "-m", golden("llama2"), "--json", code=5).err)["type"] == "context"
    folder = copy_golden("gpt2")
    (folder / "tokenizer.json").unlink()
    assert object_of(ask("info", str(folder), "--json", code=3).err)["message"] == f"no tokenizer in {folder}"


def test_without_json_there_is_none(ask: Ask) -> None:
    assert len(ask("generate", "a", "-m", "nowhere", code=3).err.splitlines()) == 2
    assert len(ask("generate", "--zzz", "--", "--json", code=2).err.splitlines()) == 2


def test_in_a_process_of_its_own() -> None:
    done = tgen("generate", "a", "--top-k", "-1", "--json", check=2)
    assert not done.stdout
    assert object_of(done.stderr.decode())["message"] == "--top-k must be 0 or more, not -1"


def test_the_types_are_stable() -> None:
    """Programs compare them."""
    kinds = (TgenError, NumericalError, UsageError, CheckpointError, UnsupportedError, MemoryLimitError, CapacityError)
    assert [(kind.type, kind.exit_code) for kind in kinds] == [
        ("unexpected", 1), ("numerical", 1), ("usage", 2), ("model", 3), ("model", 3), ("memory", 4), ("context", 5),
    ]  # fmt: skip


def test_whatever_the_message_holds_the_object_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    messages.write_errors_as_json(True)
    messages.report(UsageError("no \x1b[2J folder\nerror: \udcff é\u202e" + "x" * 5000))
    messages.write_errors_as_json(False)
    error, last = capsys.readouterr().err.splitlines()
    assert error.startswith("error: no ␛[2J folder error: ")
    assert last.isascii() and last.isprintable()
    found = json.loads(last)["error"]
    assert found["message"].startswith("no \x1b[2J folder\nerror: \udcff é\u202ex")
    assert len(found["message"]) < 1000
    assert found["hint"] is None


def test_what_is_unexpected_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr("tgen.cli.generate.open_checkpoint", fail)
    assert run(["generate", "a", "--json"]) == 1
    assert object_of(capsys.readouterr().err)["type"] == "unexpected"


def test_messages_of_several_threads_do_not_mix(capfd: pytest.CaptureFixture[str]) -> None:
    def complain(number: int) -> None:
        for _ in range(300):
            messages.error(f"{number}", f"{number}")

    threads = [threading.Thread(target=complain, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 6 * 300 * 2
    for error, hint in zip(lines[::2], lines[1::2], strict=True):
        assert (error[:7], hint[:6], error[7:]) == ("error: ", "hint: ", hint[6:])
