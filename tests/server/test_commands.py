"""Commands that a server answers: the same bytes and exit codes as without one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest

from tests.cli.conftest import Ask, ask
from tests.cli.processes import environment, running, tgen
from tests.conftest import GOLDEN
from tests.server.conftest import Served
from tests.server.test_load import until

__all__ = ["ask"]  # a fixture
LONG = ["generate", "Once", "-n", "100000", "--ignore-eos", "--samples", "4", "--server"]
TIMES = re.compile(r'"timings": \{[^}]*\}|\d+ tokens/s|first after [\d.]+ s')


@pytest.mark.parametrize(
    ("command", "stdin", "code"),
    [
        ("generate Once -n 20 --seed 4", b"", 0),
        ("generate Once -n 9 --seed 4 --json --logprobs 2 --samples 2 --echo", b"", 0),
        ("generate -n 9 --seed 4 -v --stop the --temperature 0.5", "Il était\n".encode(), 0),
        ("generate Once --num-beams 3 -n 6", b"", 0),
        ("generate --json --seed 2 -n 3", b"A beginning that the server has read before. " * 5, 0),
        ("generate --json --seed 3 -n 3", b"A beginning that the server has read before. " * 5, 0),
        ("generate Once -n 9 --seed 1 --show-probs", b"", 0),
        ("generate Once -n 9 --seed 1 --choices red,green", b"", 0),
        ("generate Once --seed 1 --choices <think>a</think>b -v", b"", 0),
        ("generate Once --seed 1 --choices <think>a</think>b --no-reasoning --json --logprobs 1", b"", 0),
        ("generate hello --chat --seed 3 -n 8 -m TALKER --no-reasoning", b"", 0),
        ("generate Once --chat -m FRENCH", b"", 2),
        ("generate hello --chat --seed 3 -n 8 -m TALKER", b"", 0),
        ("generate hello --system Short. --seed 3 -n 8 -v --template-arg nothing=1 -m TALKER", b"", 2),
        ("generate -m nowhere Once", b"", 3),
        ("generate --json", b"a " * 5000, 5),
        ("generate --overflow truncate-left -n 4 --seed 1", b"a " * 5000, 0),
        ("generate --top-p 3 x", b"", 2),
        ("generate -m BERT x", b"", 2),
        ("generate -m FRENCH --temperature 0", b"The cat sleeps.", 0),
        ("batch -n 5 --seed 4", b'{"prompt": "a", "id": 1}\n\n{"prompt": 5}\n{"prompt": "b", "samples": 2, "ban": ["e"]}\n', 7),
        ("batch -n 5 --seed 4 --shard 2/2", b'{"prompt": "a"}\n{"body": {"prompt": "b"}, "custom_id": "x"}\n', 0),
        ("batch -n 5 --seed 4 -m TALKER", b'{"messages": [{"role": "user", "content": "Hi"}]}\n', 0),
        ("batch --seed 4 -m FRENCH", b'{"messages": [{"role": "user", "content": "Hi"}]}\n', 7),
        ("score", b"Once upon a time there was a fox. " * 120, 0),
        ("score --tokens --json", b"Once upon a time.", 0),
        ("score -m FRENCH x", b"", 2),
        ("embed -m BERT", b"a fox\n\nthe dog runs home\n", 0),
        ("embed -m BERT --pooling first --normalize", b"a fox " * 300, 0),
        ("embed -m STORY x", b"", 0),
        ("translate -m FRENCH", b"The cat sleeps.\n\nI am hungry. " + b"It rains. " * 300, 0),
        ("translate -m STORY x", b"", 2),
        ("chat -m TALKER --seed 3 -n 8", b"hello\nagain\n", 0),
        ("chat -m TALKER --seed 3 --overflow truncate-left -n 40", b"tell me a long story about a fox\n" * 6, 0),
        ("chat -m TALKER --seed 3 -n 8 --system Short.", b"hello\n" + b"a " * 3000 + b"\nagain\n", 5),
        ("chat -m TALKER --seed 3 -n 8 --no-reasoning", b"hello\n", 0),
        ("chat -m FRENCH", b"hello\n", 2),
    ],
)
def test_the_same_bytes(served: Served, chat_folder: str, ask: Ask, command: str, stdin: bytes, code: int) -> None:
    names = {"TALKER": chat_folder, "BERT": str(GOLDEN / "bert"), "FRENCH": "english-french", "STORY": "storyteller"}
    words = [names.get(word, word) for word in command.split()]
    alone = ask(*words, stdin=stdin, code=code)
    before = served.metric("tgen_requests_total")
    there = ask(*words, "--server", f"http://127.0.0.1:{served.port}", stdin=stdin, code=code)
    assert TIMES.sub("", there.out) == TIMES.sub("", alone.out)
    assert TIMES.sub("", there.err) == TIMES.sub("", alone.err)
    assert served.metric("tgen_requests_total") > before or code in (2, 3), "the server computed"


def test_the_variable_and_the_server_s_own_model(served: Served, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = ask("translate", stdin=b"The cat sleeps.")
    monkeypatch.setenv("TGEN_SERVER", f"http://127.0.0.1:{served.port}")
    assert ask("translate", stdin=b"The cat sleeps.") == alone, "its first model that translates"
    assert ask("generate", "Once", "-n", "4", "--seed", "1").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--server", "unix:/nowhere/at/all"], "no server answers at unix:/nowhere/at/all"),
        (["--server", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
        (["--server", "ftp://x"], "--server ftp://x is no address"),
        (["--server", "http://x:abc"], "--server http://x:abc is no address"),
        (["--server", "HERE", "--threads", "2"], "--threads and --server exclude each other"),
        (["--server", "HERE", "--no-guess"], "--guess and --server exclude each other"),
        (["--server", "HERE", "--prompt-cache", "x"], "--prompt-cache and --server exclude each other"),
        (["--server", "HERE", "-m", str(GOLDEN / "gpt2")], "this server has no model"),
    ],
)
def test_what_is_refused(served: Served, ask: Ask, words: list[str], message: str) -> None:
    words = [f"http://127.0.0.1:{served.port}" if word == "HERE" else word for word in words]
    assert message in ask("generate", "Once", *words, code=2).err


def test_ctrl_c_keeps_what_was_written(served: Served) -> None:
    """As without a server: the text so far, and exit code 130; and the server goes on with the next request."""
    address = f"http://127.0.0.1:{served.port}"
    with running(
        "generate", "Once", "--server", address, "-n", "100000", "--ignore-eos", "--seed", "1", "--json", stdin=DEVNULL
    ) as process:
        until(lambda: served.metric("tgen_requests_running") == 1, "it begins")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    said = json.loads(out)
    assert said["choices"][0]["finish_reason"] == "cancelled"
    assert said["choices"][0]["text"]
    until(lambda: served.metric("tgen_requests_running") == 0, "it ends")


def test_a_killed_command_ends_its_request(served: Served) -> None:
    address = f"http://127.0.0.1:{served.port}"
    before = served.metric("tgen_generated_tokens_total")
    with running(*LONG, address, stdin=DEVNULL) as process:
        until(lambda: served.metric("tgen_requests_running") == 1, "it begins")
        process.kill()
    until(lambda: served.metric("tgen_requests_running") == 0, "it ends")
    assert served.metric("tgen_generated_tokens_total") == before, "before its text was whole"


def test_the_client_loads_no_model(served: Served) -> None:
    """What makes it fast: neither arrays nor tokenizers are imported."""
    code = (
        "import sys; from tgen.cli.main import run; "
        f"assert run(['generate', 'Once', '-n', '1', '--server', 'http://127.0.0.1:{served.port}']) == 0; "
        "print(sorted({'numpy', 'torch', 'tokenizers', 'minijinja', 'rich', 'starlette'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_a_key_is_sent(tmp_path: Path) -> None:
    """And a whole server, on a Unix socket that only its owner can open, ends with what runs when it is told."""
    path = tmp_path / "socket"
    keyed = environment(TGEN_API_KEY="secret")
    with running("serve", "--unix", str(path), env=keyed) as server:
        until(path.exists, "it listens")
        assert path.stat().st_mode & 0o777 == 0o600
        assert tgen("generate", "Once", "-n", "2", "--server", f"unix:{path}", env=keyed).stdout
        refused = tgen("generate", "Once", "--server", f"unix:{path}", check=2)
        assert b"needs an API key" in refused.stderr
        second = tgen("serve", "--unix", str(path), check=2)
        assert b"a server listens on" in second.stderr
        with running("generate", "Once", "-n", "300", "--ignore-eos", "--server", f"unix:{path}", env=keyed, stdin=DEVNULL) as client:
            assert client.stdout is not None
            assert client.stdout.read(1)
            server.send_signal(signal.SIGTERM)
            client.communicate(timeout=30)
            assert client.returncode == 0, "what runs is not cut"
        assert server.wait(30) == 0
        assert not path.exists()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running("serve", "--unix", str(path)) as server:
        until(path.exists, "it listens")
        with running(*LONG, f"unix:{path}", stdin=DEVNULL) as client:
            assert client.stdout is not None
            assert client.stdout.read(1)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.poll() is None, "it drains"
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 143
            _, err = client.communicate(timeout=30)
            assert client.returncode == 1
            assert b"the connection to the server" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port must be between 0 and 65535, not 70000"),
        (["--batch-size", "0"], "--batch-size must be 1 or more, not 0"),
        (["--timeout", "0"], "--timeout must be above 0"),
        (["--max-body", "x"], "--max-body must be a size, not 'x'"),
        (["--memory", "1K"], "bytes of weights, --memory allows 1,024"),
        (["--host", "256.0.0.1"], "cannot listen on --host 256.0.0.1"),
        (["--host", "256.0.0.1"], "hint: --host is an address or a name of this machine"),
        (["-m", "storyteller", "-m", "storyteller"], "two models have the name storyteller"),
        (["-m", "nowhere"], "no model 'nowhere'"),
        (["--allow-origin", "x"], "--allow-origin x is not an origin"),
        (["--unix", "/"], "--unix / exists and is not a socket"),
    ],
)
def test_a_server_that_cannot_start_says_why(ask: Ask, words: list[str], message: str) -> None:
    code: Any = {"--memory": 4, "-m": 3}.get(words[0], 2) if words[-1] != "storyteller" else 2
    assert message in ask("serve", *words, code=code).err


def test_a_port_in_use_is_told(served: Served, ask: Ask) -> None:
    assert "another program listens there" in ask("serve", "--port", str(served.port), code=2).err


@pytest.mark.long
def test_a_detached_server(tmp_path: Path) -> None:
    """It starts, answers commands, is found, and stops; and a second one is refused."""
    there = environment(XDG_RUNTIME_DIR=str(tmp_path))
    assert tgen("serve", "--status", env=there, check=1).stdout == b"no detached server runs\n"
    assert b"no detached server runs" in tgen("generate", "Once", "--server", "auto", env=there, check=2).stderr
    assert b"no model 'nowhere'" in tgen("serve", "--detach", "-m", "nowhere", env=there, check=3).stderr
    tgen("serve", "--detach", "--batch-size", "2", env=there)
    try:
        assert tgen("serve", "--status", env=there).stdout.startswith(f"running at unix:{tmp_path}/tgen/server.sock".encode())
        assert (tmp_path / "tgen").stat().st_mode & 0o777 == 0o700
        assert b"runs at" in tgen("serve", "--detach", env=there, check=2).stderr
        text = tgen("generate", "Once", "-n", "5", "--seed", "1", env={**there, "TGEN_SERVER": "auto"}).stdout
        assert text == tgen("generate", "Once", "-n", "5", "--seed", "1").stdout
    finally:
        tgen("serve", "--stop", env=there)
    assert b"no detached server runs" in tgen("serve", "--stop", env=there, check=2).stderr


def test_a_missing_library_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = ask("serve", code=3).err
    assert "tgen serve needs starlette and uvicorn, and not all of that is installed" in said
    assert "hint: pip install 'tgen[serve]'" in said
