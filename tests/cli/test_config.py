"""The settings file: what it sets, what overrides it, and what is said of its faults; `tgen config` shows it all."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import environment, golden, tgen

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the settings file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "tgen" / "config.toml"

    def write(text: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.mark.usefixtures("write")
def test_without_a_file_tgen_says_where_it_would_be(ask: Ask, tmp_path: Path) -> None:
    said = ask("config", "-m", golden("gpt2"))
    assert said.out.splitlines()[0] == f"# {tmp_path}/tgen/config.toml (not there)"
    values = tomllib.loads(said.out)
    assert (values["model"], values["temperature"], values["color"]) == (golden("gpt2"), 0.8, "auto")
    assert "# seed " in said.out


def test_each_value_has_its_source(ask: Ask, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('\ntop-k = 7\ntemperature = 0.5\n[chat]\n"top_k" = 9\n[aliases]\nstory = "storyteller"\n')
    monkeypatch.setenv("TGEN_TEMPERATURE", "0.25")
    monkeypatch.setenv("NO_COLOR", "1")
    found = ask("config", "--json").json
    assert found["file"] == str(path)
    assert found["aliases"] == {"story": "storyteller"}
    assert found["commands"] == {"chat": {"top_k": 9}}
    shown = found["settings"]
    assert shown["top_k"] == {"value": 7, "source": "settings file, line 2"}
    assert shown["temperature"] == {"value": 0.25, "source": "environment, TGEN_TEMPERATURE"}
    assert shown["color"] == {"value": "never", "source": "environment, NO_COLOR"}
    assert shown["no_repeat_ngram_size"] == {"value": 8, "source": "folder of the shipped model"}
    assert shown["presence_penalty"] == {"value": 0.0, "source": "built-in"}
    assert shown["seed"] == {"value": None, "source": "chosen anew for each run"}
    assert ask("config", "chat", "--json").json["settings"]["top_k"] == {"value": 9, "source": "settings file, line 5"}
    assert "top_k" not in ask("config", "translate", "--json").json["settings"]


def test_what_config_writes_is_a_settings_file(ask: Ask, write: Write) -> None:
    write('temperature = 0.5\n[chat]\ntop_k = 3\n[aliases]\n"a b" = "x\\"y"\n')
    shown = ask("config").out
    write(shown)
    again = ask("config").out
    assert tomllib.loads(again) == tomllib.loads(shown)
    assert tomllib.loads(shown)["aliases"] == {"a b": 'x"y'}


def test_a_setting_yields_to_variable_and_option_but_not_to_the_folder(ask: Ask, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def used(*options: str) -> str:
        said = ask("generate", "x", "-n", "1", "--verbose", *options).err
        [line] = [line for line in said.splitlines() if line.startswith("--top-p")]
        return " ".join(line.split()[1:])

    assert used() == "0.9 model"
    write("top_p = 0.8")
    assert used() == "0.8 settings"
    monkeypatch.setenv("TGEN_TOP_P", "0.7")
    assert used() == "0.7 environment"
    assert used("--top-p", "0.6") == "0.6 asked"
    monkeypatch.delenv("TGEN_TOP_P")
    monkeypatch.setenv("TGEN_CONFIG", "/dev/null")
    assert used() == "0.9 model"


def test_a_model_has_a_short_name(ask: Ask, write: Write) -> None:
    write(f'model = "mine"\n[tokenize]\nmodel = "other"\n[aliases]\nmine = "{golden("gpt2")}"\nother = "storyteller"\n')
    assert ask("generate", "x", "-n", "1", "--json").json["model"] == "mine"
    assert ask("generate", "x", "-n", "1", "--json", "--draft-model", "mine").json["model"] == "mine"
    assert ask("tokenize", "abc").out == ask("tokenize", "abc", "-m", "storyteller").out != ask("tokenize", "abc", "-m", "mine").out


def test_translate_has_a_model_of_its_own(ask: Ask, write: Write) -> None:
    write(f'model = "{golden("gpt2")}"')
    plain = ask("translate", "Good morning.", "-n", "4").out
    write(f'model = "{golden("gpt2")}"\n[translate]\nmodel = "{golden("t5")}"')
    assert ask("translate", "Good morning.", "-n", "4").out != plain


def test_a_setting_leaves_a_folder_its_beams(ask: Ask, write: Write) -> None:
    """Unlike a variable: a taste for all models must not turn off the search that one model is made for."""
    write("temperature = 0.5")
    assert (
        "--num-beams            4              model"
        in ask("generate", "x", "-n", "2", "-v", "-m", "english-french", "--color", "never").err
    )


def test_settings_of_running_and_of_colour(ask: Ask, write: Write) -> None:
    write('executor = "torch"\nquantize = "int8"')
    assert "--quantize" in ask("generate", "x", "-m", golden("gpt2"), code=2).err
    write('color = "always"')
    assert "\x1b[" in ask("generate", "x", "-n", "1", "-m", golden("gpt2"), "--show-probs", "-v").err
    assert "\x1b[" not in ask("generate", "x", "-n", "1", "-m", golden("gpt2"), "-v", "--color", "never").err


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("top_k = 1\n\ntemprature = 1", "line 3: there is no setting 'temprature'", "nearest: temperature"),
        ("[chats]\ntop_k = 1", "line 1: there is no setting 'chats'", "nearest: chat"),
        ("top_k = 1\n[chat]\ntopk = 1", "line 3: there is no setting 'topk' in [chat]", "nearest: top_k"),
        ("chat.topk = 1", "config.toml: there is no setting 'topk' in [chat]", "nearest: top_k"),
        ("top_k = -1", "line 1: --top-k must be 0 or more, not -1", "`tgen config` lists"),
        ('top_k = "many"', "line 1: --top-k must be a number, not 'many'", "`tgen config` lists"),
        ("top_k = true", "line 1: --top-k must be a number, not True", "`tgen config` lists"),
        ('color = "pink"', "line 1: --color must be one of auto, always, never, not 'pink'", "`tgen config` lists"),
        ("model = 3", "line 1: --model must be a text, not 3", "`tgen config` lists"),
        ("top_k = 1\ntop-k = 2", "line 2: top_k is set twice", "leave one"),
        ("[generate]\nguess = 1", "line 2: --guess must be true or false, not 1", "`tgen config` lists"),
        ("aliases = 3", "line 1: aliases must be a table", "below it NAME"),
        ("[aliases]\nx = 3", "line 2: the alias 'x' must be a text, not 3", "a folder"),
        ("top_k 3", "is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)", "NAME = VALUE"),
        ("[generate]\npooling = 3", "line 2: there is no setting 'pooling' in [generate]", "`tgen config` lists"),
    ],
)
def test_a_fault_is_named_with_its_line(ask: Ask, write: Write, text: str, message: str, hint: str) -> None:
    path = write(text)
    for command in (["generate", "x"], ["config"]):
        error, advice = ask(*command, code=2).err.splitlines()
        assert error.startswith(f"error: {path}")
        assert message in error
        assert hint in advice


def test_a_command_s_table_has_only_its_options(ask: Ask, write: Write) -> None:
    path = write("[score]\n\ntemperature = 1")
    for command in (["score", "x"], ["config", "score"]):
        assert ask(*command, code=2).err.startswith(f"error: {path}, line 3: tgen score has no option temperature\n")
    assert ask("tokenize", "x", "--ids").out


def test_a_bad_file_is_explained_and_help_works_all_the_same(ask: Ask, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("")
    path.write_bytes(b"a = '\xff'")
    assert "is not UTF-8 at byte 5" in ask("generate", "x", code=2).err
    assert ask("generate", "--help").out
    path.unlink()
    path.mkdir()
    assert f"cannot read {path}: Is a directory" in ask("generate", "x", code=2).err
    monkeypatch.setenv("TGEN_CONFIG", "missing.toml")
    assert "no settings file missing.toml" in ask("generate", "x", code=2).err
    assert "no command 'nonsense'" in ask("config", "nonsense", code=2).err


def test_no_file_costs_nothing() -> None:
    done = tgen("generate", "x", "-n", "1", env=environment(PYTHONPROFILEIMPORTTIME="1", HOME="/nowhere", XDG_CONFIG_HOME=""))
    assert b"| tomllib" not in done.stderr
