"""Commands where torch is not installed: those that the native executor serves work, the others say what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import environment, golden
from tests.cli.talking import chat_model
from tgen.executors.native import library

# `import torch` fails, as it does where torch is not installed, and nothing finds the package.
WITHOUT = "import sys; sys.modules['torch'] = None; from tgen.cli.main import run; sys.exit(run(sys.argv[1:]))"
LOADED = "import sys; from tgen.cli.main import run; code = run(sys.argv[1:]); sys.exit(9 if 'torch' in sys.modules else code)"
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


@pytest.mark.parametrize("arguments", SERVED, ids=" ".join)
def test_torch_is_not_imported(arguments: list[str]) -> None:
    """Not even where it is installed."""
    done = run(LOADED, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_chat_imports_no_torch(tmp_path: Path) -> None:
    done = run(LOADED, "chat", "-m", chat_model(tmp_path / "model"), "-n", "3", "--seed", "1", stdin="Hello\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("arguments", [one for one in SERVED if one[0] in ("generate", "translate", "embed", "info")], ids=" ".join)
def test_torch_need_not_be_installed(arguments: list[str]) -> None:
    done = run(WITHOUT, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


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
    assert ["executor", "torch", "(asked", "for)"] in [
        line.split() for line in run(LOADED, "info", TGEN_EXECUTOR="torch").stdout.splitlines()
    ]
