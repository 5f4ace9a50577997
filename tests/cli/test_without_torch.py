"""Commands where torch is not installed: those that the native executor serves work, the others say what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import environment, golden
from tests.cli.talking import chat_model
from tgen.executors.native import library

# `import torch` fails, as it does where torch is not installed, and nothing finds the package.
WITHOUT = "import sys; sys.modules['torch'] = None; from tgen.cli.main import run; sys.exit(run(sys.argv[1:]))"
# Several commands in one process: each reads the same standard input and ends well, and torch is there after none.
COMMANDS = """
import json, sys
from tgen.cli.main import run

banned, stdin, commands = json.loads(sys.argv[1])
if banned:
    sys.modules["torch"] = None
for command in commands:
    sys.stdin = open(stdin)
    code = run(command)
    assert (code, sys.modules.get("torch")) == (0, None), command
    print("--- done", flush=True)
"""
NEEDED = "error: {} needs PyTorch, which is not installed{}\nhint: pip install torch\n"

if library.load().problem is not None:
    pytest.skip("the native executor's library is not built", allow_module_level=True)

SERVED = [
    ["generate", "Once upon a time", "-n", "3", "--json", "--logprobs", "2"],
    ["generate", "Once", "-n", "4", "--samples", "2"],
    ["generate", "Once", "-n", "3", "--num-beams", "2"],
    ["generate", "A:", "-n", "9", "--regex", "[0-9]{3}"],
    ["batch", "-n", "3"],
    ["translate", "Good morning."],
    ["score", "Once upon a time"],
    ["explain", "Once", "-n", "2"],
    ["fill", "a [MASK] b", "-m", golden("bert")],
    ["embed", "a text", "-m", golden("bert")],
    ["bench", "--repeats", "1", "-n", "2", "-c", "8"],
    ["bench", "--repeats", "1", "-n", "2", "-c", "8", "--batch", "2"],
    ["info"],
    ["models"],
    ["tokenize", "a text"],
    ["attention", "--help"],
    ["train", "--help"],
]


def run(script: str, *arguments: str | Path, stdin: str = '{"prompt": "A"}\n', **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, input=stdin, env=environment(**variables), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("banned", [False, True], ids=["installed", "not installed"])
def test_torch_is_not_imported(banned: bool, tmp_path: Path) -> None:
    """Neither where it is installed nor where it is not."""
    (tmp_path / "stdin").write_text('{"prompt": "A"}\n')
    chat = ["chat", "-m", str(chat_model(tmp_path / "model")), "-n", "3", "--seed", "1"]
    done = run(COMMANDS, json.dumps([banned, str(tmp_path / "stdin"), [*SERVED, chat]]))
    assert done.returncode == 0, done.stderr
    *written, rest = done.stdout.split("--- done\n")
    assert (len(written), rest) == (len(SERVED) + 1, "") and all(written)


@pytest.mark.parametrize(
    ("arguments", "what", "reason"),
    [
        (["attention", "a text"], "tgen attention", ""),
        (["train", __file__, "-o", "never-made"], "tgen train", ""),
        (["generate", "Once", "--executor", "torch"], "this model", ""),
        (
            ["generate", "Once", "--device", "cuda"],
            "this model",
            "; the native executor does not run it: it runs on the CPU only, not on cuda",
        ),
    ],
)
def test_what_needs_torch_says_so(arguments: list[str], what: str, reason: str) -> None:
    done = run(WITHOUT, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", NEEDED.format(what, reason))


def test_info_says_that_nothing_runs_the_model() -> None:
    done = run(WITHOUT, "info", TGEN_EXECUTOR="torch")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].split() == ["runs", "no"]
    assert done.stderr == NEEDED.format("this model", "")


def test_info_of_torch_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "stdin").touch()
    done = run(COMMANDS, json.dumps([False, str(tmp_path / "stdin"), [["info"]]]), TGEN_EXECUTOR="torch")
    assert done.returncode == 0, done.stderr
    assert ["executor", "torch", "(asked", "for)"] in [line.split() for line in done.stdout.splitlines()]
