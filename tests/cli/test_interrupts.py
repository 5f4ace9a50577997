"""Ctrl-C and SIGTERM end the process quietly, wherever they fall."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

import tgen
from tests.cli.processes import TGEN, TIMEOUT, environment, golden, running

# Runs tgen as the installed command does, and sends it a signal at one point: when a module is imported, when typer builds the command,
# in a `__del__` while it does, or among what was registered for the end.
PROGRAM = """
import atexit, os, signal, sys
number, point = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)
def strike(*_):
    os.kill(os.getpid(), number)
class Finder:
    def find_spec(self, name, *_):
        if name == point:
            strike()
class Dying:
    __del__ = strike
sys.meta_path.insert(0, Finder())
if point == "atexit":
    atexit.register(strike)
if point in ("get_command", "__del__"):
    import typer.main
    build = typer.main.get_command
    typer.main.get_command = strike if point == "get_command" else lambda app: (Dying(), build(app))[1]
sys.argv = ["tgen", *sys.argv[3:]]
from tgen.__main__ import main
main()
"""
POINTS = ["tgen.cli.main", "typer.core", "tgen.cli.tokenize", "get_command", "__del__", "tokenizers", "atexit"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("point", POINTS)
def test_a_signal_at_a_certain_point(point: str, number: signal.Signals) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(int(number)), point, "tokenize", "x", "-m", golden("gpt2")]
    done = subprocess.run(arguments, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (128 + number, b"")


@pytest.mark.parametrize("point", ["numpy", "torch", "torch.nn.functional"])
def test_ctrl_c_while_torch_is_imported(point: str) -> None:
    """Its own modules catch exceptions, and raise others."""
    arguments = [
        sys.executable,
        "-c",
        PROGRAM,
        str(int(signal.SIGINT)),
        point,
        "generate",
        "x",
        "-n",
        "1",
        "-m",
        golden("gpt2"),
        "--executor",
        "torch",
    ]
    done = subprocess.run(arguments, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.long
def test_ctrl_c_at_any_moment() -> None:
    """Only Python's own start, and the script that pip wrote, may end in a traceback. The last signals may come after the end."""
    package = tgen.__file__.removesuffix("__init__.py")
    codes = []
    for step in range(24):
        with running("generate", "Once", "-n", "64", "-m", golden("gpt2"), stdin=subprocess.DEVNULL) as process:
            time.sleep(0.02 + step * 0.01)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.read().decode()
            code = process.wait(TIMEOUT)
        assert package not in said.replace(TGEN, ""), said
        assert "ignored" not in said
        assert code in (0, 130) or "Traceback" in said or (code == -signal.SIGINT and not said)
        codes.append(code)
    assert codes.count(130) >= 5
