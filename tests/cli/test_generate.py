"""`tgen generate` as a process: exact text on stdout, everything else on stderr, one exit code for each way to end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from typing import IO

import pytest

from tests.cli.processes import TGEN, TIMEOUT, environment, golden, on_terminal, running, tgen
from tgen.cli import main
from tgen.ui.harmless import harmless

# A random model at a high temperature: its text is full of control characters and of bytes that are no UTF-8.
PROMPT = "Once [/INST] \x1b]52;c;QUJD\x07"
OPTIONS = "--seed 1 -n 150 --ignore-eos --temperature 99 --top-k 0 --top-p 1"
COMMAND = ("generate", PROMPT, "-m", golden("bloom"), *OPTIONS.split())
ENDLESS = ("generate", "x", "-m", golden("bloom"), "-n", "100000", "--ignore-eos", "--overflow", "shrink")


@pytest.fixture(scope="module", autouse=True)
def silent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody answers. It ends after ten seconds, and the other tests of this file run meanwhile."""
    with running("generate", "x", "-n", "3", "-m", golden("gpt2")) as process:
        yield process


@pytest.fixture(scope="module")
def text() -> bytes:
    """What COMMAND writes into a pipe."""
    done = tgen(*COMMAND)
    assert done.stderr == b""
    assert set(done.stdout) & set(range(9))  # a pipe gets control characters as they are
    return done.stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
        {"FORCE_COLOR": "1", "COLUMNS": "10", "PYTHONUNBUFFERED": "1"},
    ],
)
def test_a_pipe_gets_the_same_bytes_everywhere(text: bytes, changes: dict[str, str]) -> None:
    assert tgen(*COMMAND, env=environment(**changes)).stdout == text


def test_a_terminal_gets_prompt_harmless_text_newline_and_one_line_of_statistics(text: bytes) -> None:
    code, shown = on_terminal(*COMMAND, columns=30)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    shown_text, _, statistics = plain.removesuffix("\n").rpartition("\n")
    assert shown_text == harmless(PROMPT + text.decode()).removesuffix("\n")
    assert re.fullmatch(r"\d+ \+ 150 tokens · \d+ tokens/s · first after [0-9.]+ s · cut by length · seed 1", statistics)
    assert shown.startswith("\x1b[2mOnce [/INST] \u241b]52;c;QUJD\u2407\x1b[0m")


def test_a_dumb_terminal_gets_no_escape_byte() -> None:
    code, shown = on_terminal(*COMMAND, "--quiet", TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown
    assert "tokens" not in shown


def test_json_has_the_fields_of_a_completion(text: bytes) -> None:
    done = tgen(*COMMAND, "--samples", "2", "--json", "--logprobs", "2")
    result = json.loads(done.stdout)
    assert done.stdout.endswith(b"}\n")
    assert done.stdout.count(b"\n") == 1
    assert set(result) == {"model", "choices", "usage", "seed", "timings"}
    assert result["usage"] == {
        "prompt_tokens": result["usage"]["prompt_tokens"],
        "completion_tokens": 300,
        "total_tokens": result["usage"]["prompt_tokens"] + 300,
    }
    assert result["seed"] == 1
    first, second = result["choices"]
    assert [first["index"], second["index"]] == [0, 1]
    assert first["finish_reason"] == second["finish_reason"] == "length"
    assert first["text"].encode() == text  # one stream of random numbers for each sample
    assert second["text"] != first["text"]
    assert len(first["tokens"]) == len(first["logprobs"]["token_logprobs"]) == 150
    assert all(logprob <= 0 for logprob in first["logprobs"]["token_logprobs"])
    for likeliest, best in zip(first["logprobs"]["top_logprobs"], first["logprobs"]["top_tokens"], strict=True):
        assert [set(candidate) for candidate in best] == [{"token", "id", "logprob", "bytes"}] * 2
        assert best[0]["logprob"] >= best[1]["logprob"]
        assert likeliest == {candidate["token"]: candidate["logprob"] for candidate in reversed(best)}
    assert first["logprobs"]["text_offset"] == sorted(first["logprobs"]["text_offset"])


def test_values_have_their_source_and_the_printed_command_repeats_the_text() -> None:
    settings = environment(TGEN_TEMPERATURE="1.3", TGEN_TOP_K="5", TGEN_MODEL=golden("gpt2"))
    done = tgen("generate", "it's\n", "-v", "--top-k", "7", "--fail-on-length", "-n", "9", "--stop", "a b", env=settings, check=6)
    lines = done.stderr.decode().splitlines()
    values = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("--")}
    assert values["--top-k"] == ["7", "asked"]
    assert values["--temperature"] == ["1.3", "environment"]
    assert values["--top-p"] == ["0.95", "built-in"]
    assert values["--seed"][1] == "chosen"
    assert values["--stop"] == ["'a", "b'", "asked"]
    [command] = [line for line in lines if line.startswith("tgen generate ")]
    assert command.endswith(r" -- $'it\'s\n'")
    again = subprocess.run(
        ["bash", "-c", command.replace("tgen", shlex.quote(TGEN), 1)],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert again.stdout == done.stdout


def test_standard_input_comes_before_the_argument() -> None:
    done = tgen("generate", "three", "--echo", "-n", "1", "-m", golden("gpt2"), stdin="öne\ntwo\n".encode())
    assert done.stdout.decode().startswith("öne\ntwo\nthree")


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with running(*ENDLESS, stdin=subprocess.DEVNULL) as process:
        assert len(read(process.stdout, 20)) == 20
        assert process.stdout is not None
        process.stdout.close()
        assert read(process.stderr) == b""
        assert process.wait() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_text(number: signal.Signals, code: int) -> None:
    with running(*ENDLESS, "--echo", "-v", stdin=subprocess.DEVNULL) as process:
        text = read(process.stdout, 4)
        process.send_signal(number)
        text += read(process.stdout)
        messages = read(process.stderr)
        assert process.wait() == code
    assert text.decode().startswith("x")  # whole characters
    assert b"interrupted" in messages
    assert b"Traceback" not in messages


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_token_ends_it_at_once(number: signal.Signals, code: int) -> None:
    with running("generate", "-", "-m", golden("gpt2")) as process:  # waits for standard input once the model is loaded
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(number)
        assert process.wait() == code
        assert read(process.stdout) == read(process.stderr) == b""


@pytest.mark.parametrize(("ignored", "heard", "code"), [(signal.SIGINT, signal.SIGTERM, 143), (signal.SIGTERM, signal.SIGINT, 130)])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(ignored: signal.Signals, heard: signal.Signals, code: int) -> None:
    deaf = {"stdin": subprocess.DEVNULL, "preexec_fn": lambda: signal.signal(ignored, signal.SIG_IGN)}
    with running(*ENDLESS, **deaf) as process:
        text = read(process.stdout, 4)
        process.send_signal(ignored)
        text += read(process.stdout, 400)
        assert len(text) == 404
        process.send_signal(heard)
        read(process.stdout)
        assert process.wait() == code


def read(stream: IO[bytes] | None, count: int = -1) -> bytes:
    """Bytes from a pipe, to its end if no count is given."""
    assert stream is not None
    return stream.read(count)


def test_a_prompt_that_does_not_fit() -> None:
    done = tgen("generate", "word " * 200, "-m", golden("gpt2"), check=5)
    assert done.stdout == b""
    assert re.match(rb"error: the prompt has \d+ tokens, the model's context is 64\nhint: .*truncate-left\n$", done.stderr)


def shell(redirections: str) -> subprocess.CompletedProcess[bytes]:
    """COMMAND with some of its streams closed or sent elsewhere."""
    line = f"{shlex.join([TGEN, *COMMAND])} {redirections}"
    return subprocess.run(["sh", "-c", line], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_streams_that_are_closed_or_full(text: bytes) -> None:
    assert shell("<&- 2>&-").stdout == text
    closed, full = shell(">&-"), shell(">/dev/full")
    assert (closed.returncode, closed.stderr) == (
        1,
        b"error: cannot write: standard output is closed\nhint: check where standard output goes\n",
    )
    assert (full.returncode, full.stderr) == (
        1,
        b"error: cannot write: No space left on device\nhint: make room, or write to another disk\n",
    )


def test_a_source_that_is_cut_is_said_to_be(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "word " * 80, "-m", golden("marian"), "-n", "2"]
    assert main.run(arguments) == 5
    assert "the model's encoder reads 64" in capfd.readouterr().err
    assert main.run([*arguments, "--overflow", "truncate-left"]) == 0
    assert "tokens were left out to fit the context of 64" in capfd.readouterr().err


def test_a_silent_standard_input_does_not_hang(silent: subprocess.Popen[bytes]) -> None:
    text, messages = read(silent.stdout), read(silent.stderr)
    assert silent.wait() == 2
    assert text == b""
    assert re.search(rb"note: .*open but silent(.|\n)*error: .*silent for 10 seconds\nhint: </dev/null", messages)
