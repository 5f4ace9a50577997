"""The Tab key: what the shell's script asks a process of tgen, and what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import termios
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, environment
from tests.cli.talking import Terminal, own_terminal
from tests.sweeps import sweep
from tgen.cli.main import COMMANDS

HEAVY = {"torch", "numpy", "tokenizers", "rich", "prompt_toolkit", "minijinja", "starlette", "pydantic"}
LOADED = "import sys; from tgen.cli.main import run; run(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"
ASKED = [
    ("", 1, [*COMMANDS]),
    ("ge", 1, ["generate"]),
    ("--sh", 1, ["--show-completion"]),
    ("--version ", 2, [*COMMANDS]),
    ("generate --tempe", 2, ["--temperature"]),
    ("generate --no-rea", 2, ["--no-reasoning"]),
    ("generate -m '' --top-k x --tempe", 6, ["--temperature"]),
    ("generate --color ", 3, ["auto", "always", "never"]),
    ("generate --quantize int", 3, ["int8", "int4"]),
    ("generate x --overflow s", 4, ["shrink"]),
    ("chat --keys v", 3, ["vi"]),
    ("generate -m ", 3, ["mine", "english-french", "storyteller", "org/name"]),
    ("generate --model=s", 2, ["storyteller"]),
    ("generate --draft-model mi", 3, ["mine"]),
    ("train x --base st", 4, ["storyteller"]),
    ("info or", 2, ["org/name"]),
    ("quantize st", 2, ["storyteller"]),
    ("models --remove ", 3, ["org/name"]),
    ("config expl", 2, ["explain"]),
    # Nothing of its own, so that the shell completes files.
    ("generate --file ", 3, []),
    ("generate -m ./", 3, []),
    ("batch ", 2, []),
    ("score x --temp", 3, []),
    ("nothing --te", 2, []),
]


@pytest.fixture
def there(tmp_path: Path) -> dict[str, str]:
    """An environment with an alias in the settings and a model in the Hugging Face cache."""
    settings = tmp_path / "tgen" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(f'[aliases]\nmine = "{tmp_path}"\n')
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "0" / "config.json"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text("{}")
    main = tmp_path / "hub" / "models--org--name" / "refs" / "main"
    main.parent.mkdir()
    main.write_text("0")
    return environment(XDG_CONFIG_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / "hub"))


def process(command: list[str], env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **more)


def typed(shell: str, line: str, word: int) -> dict[str, str]:
    """What the script of a shell tells tgen when the Tab key is pressed behind `tgen line`."""
    words = {"COMP_WORDS": f"tgen {line}", "COMP_CWORD": str(word)} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": f"tgen {line}"}
    return {**words, "_TGEN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


def commands_among(modules: set[str]) -> set[str]:
    return {name for name in COMMANDS if f"tgen.cli.{name}" in modules}


@pytest.mark.parametrize(("line", "word", "wanted"), ASKED, ids=[line for line, _, _ in ASKED])
def test_bash(there: dict[str, str], line: str, word: int, wanted: list[str]) -> None:
    done = process([TGEN], {**there, **typed("bash", line, word)})
    assert done.stdout.split() == wanted
    assert done.stderr == ""


def test_zsh_and_fish_get_descriptions_and_otherwise_complete_files(there: dict[str, str]) -> None:
    shown = process([TGEN], {**there, **typed("zsh", "explain --top-k", 2)}).stdout
    assert shown.startswith('_arguments \'*: :(("--top-k":"')
    assert shown.count("\n") == 1
    assert "default" not in shown
    assert process([TGEN], {**there, **typed("zsh", "generate --file ", 3)}).stdout == "_files\n"
    fish = {**there, **typed("fish", "ex", 1)}
    assert process([TGEN], fish).stdout == f"explain\t{COMMANDS['explain'].removesuffix('.')}\n"
    question = {"_TYPER_COMPLETE_FISH_ACTION": "is-args"}
    assert process([TGEN], {**fish, **question}).returncode == 0
    assert process([TGEN], {**there, **typed("fish", "generate --file ", 3), **question}).returncode == 1


LINES = ("", "generate --te", "generate -m ", "serve --", "train --base ")


@pytest.mark.parametrize(("shell", "line"), sweep(product(("bash", "zsh", "fish"), LINES), lambda one: one[0] == "bash"))
def test_nothing_heavy_is_imported(there: dict[str, str], shell: str, line: str) -> None:
    words = line.split(" ")
    done = process([sys.executable, "-c", LOADED], {**there, **typed(shell, line, len(words))})
    assert done.stdout
    imported = {*done.stderr.split()}
    assert not imported & HEAVY
    assert commands_among(imported) == {words[0]} - {""}


def test_a_bad_settings_file_is_no_noise(there: dict[str, str]) -> None:
    Path(there["XDG_CONFIG_HOME"], "tgen", "config.toml").write_text("nonsense = [")
    done = process([TGEN], {**there, **typed("bash", "generate -m ", 3)})
    assert (done.stdout, done.stderr) == ("", "")


def test_a_real_bash_completes(there: dict[str, str], tmp_path: Path) -> None:
    """The script that tgen prints, in a shell that calls the function as the Tab key would."""
    script = process(["bash", "-c", f"{TGEN} --show-completion; exit"], there)
    assert script.stderr == ""
    (tmp_path / "script").write_text(script.stdout)
    path = os.pathsep.join([str(Path(TGEN).parent), there["PATH"]])
    words = "COMP_WORDS=(tgen generate --seed 1 -m st); COMP_CWORD=5"
    tab = f'source ./script; {words}; _tgen_completion tgen; echo "${{COMPREPLY[@]}}"; complete -p tgen'
    done = process(["bash", "-c", tab], {**there, "PATH": path}, cwd=tmp_path)
    assert done.stdout == "storyteller\ncomplete -o default -F _tgen_completion tgen\n", done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_a_real_fish_completes(there: dict[str, str], tmp_path: Path) -> None:
    env = {**there, "PATH": os.pathsep.join([str(Path(TGEN).parent), there["PATH"]]), "HOME": str(tmp_path)}
    (tmp_path / "a file").touch()
    lines = ("generate --tempe", "generate -m st", "generate --file a")
    asked = "".join(f'complete -C "tgen {line}"; ' for line in lines)
    done = process(["fish", "--no-config", "-c", f"{TGEN} --show-completion | source; {asked}"], env, cwd=tmp_path)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["--temperature", "storyteller", "a file"], done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_a_real_zsh_completes(there: dict[str, str], tmp_path: Path) -> None:
    """A person at its prompt presses the Tab key."""
    path = os.pathsep.join([str(Path(TGEN).parent), there["PATH"]])
    env = {**there, "PATH": path, "HOME": str(tmp_path), "TERM": "xterm", "PS1": "@ "}
    (tmp_path / "file").touch()
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 200))
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=tmp_path, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=own_terminal
    )
    os.close(slave)
    person = Terminal(shell, master)
    try:
        person.wait_for("@ ")
        # In the shell itself, a function shows what it would run; the completion asks the program.
        shown = 'tgen() { print -r -- "<$*>" }'
        person.type(f"autoload -U compinit; compinit -D; source <({TGEN} --show-completion; true); {shown}; echo do''ne\n")
        person.wait_for("done\n")
        for line, whole in (
            ("generate --tempe", "generate --temperature"),
            ("generate -m st", "generate -m storyteller"),
            ("generate --file fi", "generate --file file"),
        ):
            person.type(f"tgen {line}\t")
            person.type("\n")
            person.wait_for(f"<{whole}>")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


def test_the_script_is_installed(there: dict[str, str], tmp_path: Path) -> None:
    done = process(["bash", "-c", f"{TGEN} --install-completion; exit"], {**there, "HOME": str(tmp_path)})
    path = tmp_path / ".bash_completions" / "tgen.sh"
    assert done.stdout == f"{path} completes tgen in each shell that is started from now on\n"
    assert "_TGEN_COMPLETE=complete_bash" in path.read_text()
    assert str(path) in (tmp_path / ".bashrc").read_text()


def test_another_shell_is_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    for option in ("--show-completion", "--install-completion"):
        said = ask(option, code=2)
        assert said.err == "error: tgen completes nothing in tcsh\nhint: run this from one of: bash, zsh, fish\n"


def test_all_commands_are_listed_without_their_modules() -> None:
    done = process([sys.executable, "-c", LOADED, "--help"], environment())
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert commands_among({*done.stderr.split()}) == set()
