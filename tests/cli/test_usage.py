"""Help, version and mistakes on the command line: at once, in words, and with the exit codes of the contract."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.cli.conftest import Ask
from tests.cli.processes import environment, golden, tgen
from tgen import __version__
from tgen.cli import main
from tgen.errors import MemoryLimitError

COMMANDS = sorted(main.COMMANDS)
Captured = pytest.CaptureFixture[str]


def mistake(capsys: Captured, *arguments: str, code: int = 2) -> str:
    """The error message of a command line, which writes nothing to stdout."""
    assert main.run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    message, *hint = captured.err.splitlines()
    assert message.startswith("error: ")
    assert all(line.startswith("hint: ") for line in hint)
    return captured.err


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--temperature", "-1", "must be 0 or more, not -1"),
        ("--temperature", "nan", "must be a number, not nan"),
        ("--temperature", "warm", "must be a number, not 'warm'"),
        ("--top-k", "-1", "must be 0 or more, not -1"),
        ("--top-k", "1.5", "must be a whole number, not '1.5'"),
        ("--top-p", "1.1", "must be between 0 and 1, not 1.1"),
        ("--min-p", "-0.1", "must be between 0 and 1, not -0.1"),
        ("--repetition-penalty", "0", "must be above 0, not 0"),
        ("--presence-penalty", "inf", "must be a number, not inf"),
        ("--max-new-tokens", "0", "must be 1 or more, not 0"),
        ("--seed", "-1", "must be between 0 and"),
        ("--samples", "0", "must be between 1 and 4096, not 0"),
        ("--threads", "0", "must be between 1 and 4096, not 0"),
        ("--stop", "", "must not be empty"),
        ("--stop", "\udcff", "is not UTF-8"),
        ("--overflow", "drop", ": 'drop' is not one of 'error', 'truncate-left', 'shrink'"),
        ("--device", "tpu", ": 'tpu' is not one of"),
        ("--color", "pink", ": 'pink' is not one of"),
        ("--logprobs", "3", "needs --json"),
    ],
)
def test_a_bad_value_is_named_with_its_option(capsys: Captured, option: str, value: str, reason: str) -> None:
    assert re.match(f"error: {option}:? ?{re.escape(reason.removeprefix(': '))}", mistake(capsys, "generate", "x", option, value))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["no such command 'nonsense'", "`tgen --help` lists the commands"]),
        (["generate", "x", "--quantize", "int8", "--executor", "torch"], ["--quantize int8 and --executor torch exclude each other"]),
        (["--nonsense"], ["no such option: --nonsense", "`tgen --help`"]),
        (["--nonsense", "generate"], ["no such option: --nonsense", "`tgen --help`"]),
        (["generate", "x", "--top"], ["no such option: --top", "--top-k", "`tgen generate --help`"]),
        (["generate", "-m"], ["'-m' requires an argument", "`tgen generate --help`"]),
        (["generate", "--echo=1"], ["does not take a value", "`tgen generate --help`"]),
        (["generate", "Once", "upon"], ["unexpected extra argument", "quotes"]),
        (["generate", "x", "-f", "y"], ["as an argument or as --file, not both"]),
        (["generate", "-f", "missing\udcff"], ["cannot read missing\\udcff: No such file", "hint: check the path"]),
        (["generate", "-f", "."], ["cannot read .: Is a directory", "hint: check the path"]),
        (["generate", "x\udcff"], ["argument is not UTF-8"]),
        (["info", "x", "-m", "y"], ["as an argument or as --model, not both"]),
        (["bench", "--repeats", "0"], ["--repeats must be 1 or more, not 0"]),
        (["train", "x", "--every", "0"], ["--every must be 1 or more, not 0"]),
        (["train", "x", "--width", "100"], ["--width must be a multiple of 64"]),
        (["train"], ["give exactly one of text files, --pairs and --resume"]),
        (["train", "x", "--resume"], ["give exactly one of text files, --pairs and --resume"]),
        (["train", "x", "--steps", "1", "--minutes", "1"], ["--steps or --minutes, and not both"]),
    ],
)
def test_a_mistake_is_explained(capsys: Captured, arguments: list[str], words: list[str]) -> None:
    message = mistake(capsys, *arguments)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_may_be_empty(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """An unset variable of a script must not become the current folder, or the shipped model. Texts themselves may be empty."""
    monkeypatch.chdir(tmp_path)
    group: Any = typer.main.get_command(main.make_app())
    for parameter in group.commands[command].params:
        if parameter.name in ("prompt", "text") or getattr(parameter, "is_flag", False):
            continue
        option = parameter.param_type_name == "option"
        before = ["x"] if parameter.metavar == "FOLDER" and not option else []
        for words in [[name, ""] for name in parameter.opts] if option else [[*before, ""]]:
            name = parameter.opts[0] if option else parameter.metavar
            assert mistake(capsys, command, *words).startswith(f"error: {name} must not be empty\nhint: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["attention", "a b", "--svg", "", "-m", golden("gpt2")], "--svg"),
        (["generate", "-f", "", "-n", "3"], "--file"),
        (["generate", "x", "--prompt-cache="], "--prompt-cache"),
        (["generate", "x", "--stop", "a", "--stop", ""], "--stop"),
        (["batch", "-o", "", "q.jsonl"], "--output"),
        (["batch", "q.jsonl", ""], "FILE"),
        (["train", "t.txt", "-o", ""], "--output"),
        (["generate", "hi", "-m", ""], "--model"),
        (["info", ""], "MODEL"),
    ],
)
def test_an_empty_value_among_others(capsys: Captured, arguments: list[str], name: str) -> None:
    assert mistake(capsys, *arguments).startswith(f"error: {name} must not be empty\n")


def test_a_bad_variable_is_named(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGEN_TOP_K", "many")
    assert "TGEN_TOP_K='many'" in mistake(capsys, "generate", "x")


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("TGEN_NUM_BEAMS", "use --num-beams"),
        ("TGEN_STOP", "use --stop"),
        ("TGEN_COLOR", "use --color"),
        ("TGEN_TEMPRATURE", "do you mean TGEN_TEMPERATURE?"),
        ("TGEN_MODELS", "do you mean TGEN_MODEL?"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch, variable: str, words: str) -> None:
    command = ("generate", "x", "-n", "1", "-m", golden("gpt2"))
    monkeypatch.setenv("TGEN_OF_MINE", "1")
    monkeypatch.setenv("TGEN_CACHE_GB", "1")
    assert ask(*command).err == ""
    monkeypatch.setenv(variable, "1")
    assert ask(*command).err == f"warning: tgen reads no variable {variable}; {words}\n"
    assert ask(*command, "-q").err == ""
    monkeypatch.setenv(variable, "")
    assert ask(*command).err == ""


def test_a_removed_current_folder_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where torch starts, its libraries would end the process; other commands need the folder for relative paths alone."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    model = ("-m", golden("gpt2"))
    for words in (["attention", "a b", *model], ["generate", "x", "--executor", "torch", *model], ["quantize", golden("llama2"), "x"]):
        assert "error: the current folder does not exist any more\nhint: " in ask(*words, code=2).err
    assert ask("tokenize", "x", "--ids", *model).out


@pytest.mark.parametrize("command", ["score", "fill", "attention", "tokenize", "bench", "train", "generate", "chat", "batch", "embed"])
def test_every_command_that_opens_a_model_can_be_quiet(capsys: Captured, command: str) -> None:
    assert main.run([command, "--help"]) == 0
    assert "-q, --quiet" in capsys.readouterr().out


def test_files_to_learn_from_are_looked_for_first(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a")
    for words in (
        [str(tmp_path)],
        [f"{tmp_path}/none"],
        [f"{tmp_path}/text", "--held-back", f"{tmp_path}/none"],
        ["--pairs", f"{tmp_path}/none"],
    ):
        assert f"{tmp_path}" in mistake(capsys, "train", *words)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("oh"), 1, "error: unexpected RuntimeError: oh"),
        (MemoryLimitError("out of memory while thinking", "think less"), 4, "error: out of memory while thinking\nhint: think less"),
        (MemoryError(), 4, "error: out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (
            PermissionError(13, "Permission denied", "weights"),
            1,
            "error: weights: Permission denied\nhint: check who may read and write it",
        ),
        (OSError(28, "No space left on device"), 1, "error: cannot write: No space left on device\nhint: make room"),
        (OSError(5, "Input/output error", "x"), 1, "error: x: Input/output error\nhint: check the file and the disk"),
    ],
)
def test_an_error_becomes_a_message_and_a_code(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("tgen.cli.generate.open_generator", fail)
    assert main.run(["generate", "x"]) == code
    assert capsys.readouterr().err.startswith(words)


def test_debug_shows_the_traceback_and_keeps_the_code(capsys: Captured) -> None:
    assert main.run(["info", "missing", "--debug"]) == 3
    message = capsys.readouterr().err
    assert message.startswith("Traceback")
    assert "error: no model 'missing'" in message
    assert mistake(capsys, "info", "--", "--debug", code=3).startswith("error: no model '--debug'")


def test_the_installed_command_says_its_version_and_ends_on_a_mistake() -> None:
    assert tgen("--version").stdout == f"tgen {__version__}\n".encode()
    assert tgen("generate", "--top-k", "x", check=2).stdout == b""
    bare = tgen(check=2)
    assert bare.stdout == b""
    assert b"Usage: tgen" in bare.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_helped_with(command: str, capsys: Captured) -> None:
    assert main.run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: tgen {command} [OPTIONS]" in text
    for option in re.findall(r"^  (-\S.*?)(?:  |$)", text, flags=re.MULTILINE):
        assert not re.search(r"[<>]|range", option), option  # no type names of Python
    assert "x>=" not in text


def test_help_tells_ranges_defaults_and_order(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    main.run(["generate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--top-k INT 7th: keep the k likeliest tokens; 0 is off. [0 or more; default: the model's, else 40]",
        "[0 to 1; default: the model's, else 0.95]",
        "--samples, --num-return-sequences INT",
        "of the model's raw distribution before sampling",
        "[1 or more; default: the model's, else 256]",
    ):
        assert part in text
    order = [text.index(name) for name in ("--repetition-", "--presence-", "--temperature", "--top-k", "--top-p", "--min-p")]
    assert order == sorted(order)


LIGHT = [
    ["--help"],
    ["--version"],
    ["generate", "x", "--top-k", "-1"],
    ["generate", "--nonsense"],
    ["nonsense"],
    ["generate", "-m", "no", "x"],
]


def imported_by(command_lines: list[list[str]], forbidden: list[str]) -> list[str]:
    """Which of `forbidden` a process has imported after running command lines, with the network out of reach."""
    program = """
import json, socket, sys
def refuse(*_): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from tgen.cli.main import run
command_lines, forbidden = json.loads(sys.argv[1])
codes = [run(line) for line in command_lines]
assert all(code in (0, 2, 3) for code in codes), codes
print(json.dumps([name for name in forbidden if name in sys.modules]))
"""
    arguments = [sys.executable, "-c", program, json.dumps([command_lines, forbidden])]
    done = subprocess.run(arguments, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_help_version_and_mistakes_import_nothing_heavy() -> None:
    helps = [[command, "--help"] for command in COMMANDS]
    assert imported_by([*LIGHT, *helps, ["train", "x", "--width", "1"]], ["torch", "tokenizers", "rich", "numpy"]) == []


def test_info_tokenize_and_models_need_no_torch(tmp_path: Path, copy_golden: Callable[[str], Path]) -> None:
    (copy_golden("llama2") / "pytorch_model.bin").unlink()
    model = golden("gpt2")
    command_lines = [["info", model], ["models"], ["tokenize", "x", "-m", model], ["info", str(tmp_path / "llama2")]]
    assert imported_by(command_lines, ["torch"]) == []
