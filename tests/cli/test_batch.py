"""`tgen batch`: every line is answered once, with the text that `tgen generate` writes, whatever happens on the way."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, TIMEOUT, environment, golden, running, tgen
from tests.cli.talking import chat_model
from tgen.batch.journal import Written, count_lines

MODEL = ("-m", golden("gpt2"), "-t", "1")
BATCH = ("batch", *MODEL, "-n", "6")


def lines(values: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def records(data: bytes | str) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def text(record: Any) -> str:
    found: str = record["choices"][0]["text"]
    return found


PROMPTS = [{"prompt": "x" * (1 + 7 * n % 30), "id": n, "seed": n, "max_tokens": 1 + n % 9} for n in range(40)]


def test_the_texts_are_those_of_generate(ask: Ask) -> None:
    said = ask(*BATCH, stdin=lines(PROMPTS))
    found = records(said.out)
    assert [(record["line"], record["id"], record["seed"]) for record in found] == [(n + 1, n, n) for n in range(len(PROMPTS))]
    assert not said.err
    for n in (0, 3, 17, 39):
        wanted = PROMPTS[n]
        alone = ask("generate", str(wanted["prompt"]), *MODEL, "--seed", str(n), "-n", str(wanted["max_tokens"]), "--json").json
        del alone["timings"]
        assert {key: value for key, value in found[n].items() if key not in ("line", "id")} == alone


@pytest.mark.parametrize("size", ["1", "3", "64"])
def test_the_size_of_the_batch_changes_nothing(ask: Ask, size: str) -> None:
    assert ask(*BATCH, "-b", size, stdin=lines(PROMPTS)).out == ask(*BATCH, stdin=lines(PROMPTS)).out


def test_unordered_records_are_the_same_ones(ask: Ask) -> None:
    ordered, unordered = (records(ask(*BATCH, *more, stdin=lines(PROMPTS)).out) for more in ([], ["--unordered"]))
    assert ordered != unordered
    assert ordered == sorted(unordered, key=lambda record: record["line"])


def test_bad_lines_are_answered_by_what_is_wrong_with_them(ask: Ask) -> None:
    data = (
        lines([{"prompt": "a", "seed": 1}])
        + b'{"prompt": \xff}\n\n[]\n'
        + lines([{"prompt": "x" * 900, "id": 5}, {"prompt": "a", "topk": 3}])
    )
    data += lines([{"custom_id": "c", "body": {"prompt": "a", "n": 0}}, {"messages": [{"role": "user", "content": "a"}]}])
    data += b'{"prompt": "' + b"x" * (17 * 2**20) + b'"}\n' + json.dumps({"prompt": [5, 999999]}).encode() + b"\n" + b'{"prompt": "last"}'
    said = ask(*BATCH, stdin=data, code=7)
    found = records(said.out)
    assert [record["line"] for record in found] == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert [record.get("error", {}).get("code") for record in found if "custom_id" not in record] == [
        None, "usage", "usage", "context", "usage", "usage", "usage", "usage", None,
    ]  # fmt: skip
    by_line = {record["line"]: record for record in found}
    assert by_line[6]["error"]["hint"] == "do you mean 'top_k'?"
    assert by_line[7]["custom_id"] == "c"
    assert by_line[7]["error"] == {"code": "usage", "message": "samples must be between 1 and 4096, not 0"}
    assert "has no chat template" in by_line[8]["error"]["message"]
    assert by_line[9]["error"]["message"] == "it is longer than 16 MiB"
    assert said.err == "error: 8 of 10 lines failed\nhint: each is answered by a record with its error\n"


def test_options_of_the_command_are_for_lines_that_say_nothing_else(ask: Ask) -> None:
    wanted = [{"prompt": "a"}, {"prompt": "a", "max_tokens": 4}, {"prompt": "a", "seed": 8}, {"prompt": "a", "choices": ["yes"]}]
    found = records(ask(*BATCH, "--seed", "7", "--regex", "b+", stdin=lines(wanted)).out)
    assert [record["seed"] for record in found] == [7, 7, 8, 7]
    assert [record["usage"]["completion_tokens"] <= most for record, most in zip(found[:3], (6, 4, 6), strict=True)] == [True] * 3
    assert {*text(found[0]), *text(found[1]), *text(found[2])} == {"b"}
    assert text(found[3]) == "yes"


def test_the_form_of_openai(ask: Ask, tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model")
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "seed": 1}
    body = {"model": "any", "prompt": "Once", "max_tokens": 3, "seed": 1, "n": 2, "logprobs": 1, "echo": True}
    wanted = [
        {"custom_id": "a", "url": "/v1/completions", "body": body},
        {"custom_id": "b", "url": "/v1/chat/completions", "body": chat},
        chat,
    ]
    first, second, third = records(ask("batch", "-m", model, stdin=lines(wanted)).out)
    assert (first["custom_id"], first["error"], first["response"]["status_code"]) == ("a", None, 200)
    answer = first["response"]["body"]
    assert answer["object"] == "text_completion"
    assert [choice["text"][:4] for choice in answer["choices"]] == ["Once"] * 2
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 3
    assert second["response"]["body"]["object"] == "chat.completion"
    message = second["response"]["body"]["choices"][0]["message"]
    assert message == {"role": "assistant", "content": ask("generate", "--chat", "Hello", "-m", model, "-n", "5", "--seed", "1").out}
    assert third["choices"] == second["response"]["body"]["choices"]


def same(one: Any, other: Any) -> None:
    """Equal, but for the last bits of float32 numbers, which depend on how many rows a matrix product has."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert [*one] == [*other]
        same([*one.values()], [*other.values()])
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for item, twin in zip(one, other, strict=True):
            same(item, twin)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


def test_log_probabilities_are_those_of_generate_and_openais_client_takes_them(ask: Ask, tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model")
    options = {"max_tokens": 5, "seed": 1}
    talk = {"messages": [{"role": "user", "content": "Hello"}], **options, "logprobs": True, "top_logprobs": 2}
    wanted = [
        {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "Hello", **options, "logprobs": 2}},
        {"custom_id": "b", "url": "/v1/chat/completions", "body": talk},
    ]
    completed, spoken = (record["response"]["body"] for record in records(ask("batch", "-m", model, stdin=lines(wanted)).out))
    more = ("-m", model, "-n", "5", "--seed", "1", "--json", "--logprobs", "2")
    same(completed["choices"], ask("generate", "Hello", *more).json["choices"])
    assert [*completed["choices"][0]["logprobs"]] == [
        "tokens", "token_logprobs", "top_logprobs", "text_offset", "token_bytes", "top_tokens",
    ]  # fmt: skip
    alone = ask("generate", "--chat", "Hello", *more).json["choices"][0]
    content = spoken["choices"][0]["logprobs"]["content"]
    same([one["logprob"] for one in content], alone["logprobs"]["token_logprobs"])
    same([one["top_logprobs"] for one in content], alone["logprobs"]["top_tokens"])
    types, chat = pytest.importorskip("openai.types"), pytest.importorskip("openai.types.chat")
    assert types.Completion.model_validate(completed, strict=True).choices[0].logprobs.text_offset[0] == 0
    assert len(chat.ChatCompletion.model_validate(spoken, strict=True).choices[0].logprobs.content) == 5


def test_shards_are_the_whole(ask: Ask) -> None:
    """Put together by the numbers of their lines, the records of all shards are those of one run."""
    lines, seeded = "".join(f'{{"prompt": "Story {n}:"}}\n' for n in range(7)) + "\nbad\n", ("--seed", "3", "-n", "3", "-m", golden("gpt2"))
    whole = ask("batch", *seeded, stdin=lines.encode(), code=7).out.splitlines()
    shares = [ask("batch", *seeded, "--shard", f"{n}/3", stdin=lines.encode(), code=7 * (n == 3)).out.splitlines() for n in (1, 2, 3)]
    assert [json.loads(line)["line"] for line in shares[1]] == [2, 5]
    assert sorted((line for share in shares for line in share), key=lambda line: json.loads(line)["line"]) == whole


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/", "a/b", "-1/2", "1/0"])
def test_a_shard_that_is_none(ask: Ask, shard: str) -> None:
    assert ask("batch", "--shard", shard, stdin=b"{}", code=2).err.startswith(
        f"error: --shard must be I/N with I from 1 to N, not {shard!r}"
    )


def test_files_follow_one_another(ask: Ask, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(lines(PROMPTS[:2])[:-1])  # no newline at its end
    two.write_bytes(lines(PROMPTS[2:4]))
    found = records(ask(*BATCH, one, "-", two, stdin=lines(PROMPTS[:1])).out)
    assert [(record["line"], record["id"]) for record in found] == [(1, 0), (2, 1), (3, 0), (4, 2), (5, 3)]


def test_answers_come_while_the_input_goes_on() -> None:
    with running(*BATCH) as process:
        assert process.stdin is not None and process.stdout is not None
        for n in range(3):
            process.stdin.write(lines([{"prompt": "a", "id": n}]))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == n
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def killed_and_resumed(path: Path, output: Path, kills: int, *more: str, after_each: Callable[[], None] = lambda: None) -> None:
    """Kill a run again and again, each time some records later, and then let it finish."""
    choose = random.Random(kills)
    arguments = [*BATCH, str(path), "-o", str(output), *more]
    killed = 0
    for turn in range(kills):
        before = output.stat().st_size if output.exists() else 0
        with running(*arguments, *(["--resume"] if turn else []), stdin=subprocess.DEVNULL) as process:
            limit = time.monotonic() + TIMEOUT
            while process.poll() is None and time.monotonic() < limit and (not output.exists() or output.stat().st_size == before):
                time.sleep(0.005)
            time.sleep(choose.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        after_each()
    assert killed, "at least one run was not over yet"
    tgen(*arguments, "--resume")


@pytest.mark.parametrize("more", [[], ["--unordered"]])
@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_loses_and_doubles_nothing(ask: Ask, tmp_path: Path, more: list[str]) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    wanted = [{**PROMPTS[n % 40], "id": n} for n in range(600)]
    path.write_bytes(lines(wanted).replace(b'{"prompt"', b'\n{"prompt"', 3))
    killed_and_resumed(path, output, 3, *more)
    found = records(output.read_bytes())
    assert sorted(record["line"] for record in found) == [2, 4, 6, *range(7, 604)]
    assert sorted(record["id"] for record in found) == list(range(600))
    whole = records(ask(*BATCH, path).out)
    assert sorted(found, key=lambda record: record["line"]) == whole
    assert (found == whole) == (not more)


TOO_LONG = {"prompt": "x" * 900, "seed": 1}
AGAIN = ("--retry-errors", "--overflow", "truncate-left")


def some_too_long(count: int) -> list[dict[str, Any]]:
    return [{**(PROMPTS[n % 40] if n % 3 else TOO_LONG), "id": n} for n in range(count)]


@pytest.mark.parametrize("more", [[], ["--unordered"]])
@pytest.mark.long
def test_a_retry_that_is_killed_again_and_again_loses_and_doubles_nothing(ask: Ask, tmp_path: Path, more: list[str]) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(some_too_long(600)))
    ask(*BATCH, path, "-o", output, code=7)

    def nothing_is_lost() -> None:
        whole = output.read_bytes()
        assert {record["line"] for record in records(whole[: whole.rindex(b"\n") + 1])} == {*range(1, 601)}

    killed_and_resumed(path, output, 3, *AGAIN, *more, after_each=nothing_is_lost)
    found = records(output.read_bytes())
    whole = records(ask(*BATCH, path, "--overflow", "truncate-left").out)
    assert sorted(found, key=lambda record: record["line"]) == whole
    assert (found == whole) == (not more)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl", "standard input"]


def test_the_exit_code_is_7_while_the_output_holds_errors(ask: Ask, tmp_path: Path) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"\n" + lines([TOO_LONG, *PROMPTS[:3], {"prompt": 5}, TOO_LONG]))
    arguments: list[str | Path] = [*BATCH, path, "-o", output]
    said = "error: {} of 6 lines failed\nhint: each is answered by a record with its error; --retry-errors asks those lines again\n"
    assert ask(*arguments, code=7).err == said.format(3)
    first = output.read_bytes()
    assert ask(*arguments, "--resume", code=7).err == said.format(3)
    assert output.read_bytes() == first
    assert ask(*arguments, *AGAIN, code=7).err == said.format(1)
    second = records(output.read_bytes())
    assert [record["line"] for record in second] == [2, 3, 4, 5, 6, 7]
    assert [record["line"] for record in second if "error" in record] == [6]
    assert [record for record in second if record["line"] in (3, 4, 5)] == records(first)[1:4]
    path.write_bytes(path.read_bytes().replace(b'{"prompt": 5}', b'{"prompt": "5"}'))
    assert not ask(*arguments, "--resume", "--retry-errors").err
    assert [record["line"] for record in records(output.read_bytes())] == [2, 3, 4, 5, 6, 7]


def test_to_retry_errors_without_any_is_to_resume(ask: Ask, tmp_path: Path) -> None:
    path, output, other = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    path.write_bytes(lines(PROMPTS[:5]))
    ask(*BATCH, path, "-o", output, "--retry-errors")
    ask(*BATCH, path, "-o", other)
    assert output.read_bytes() == other.read_bytes()
    output.write_bytes(b"".join(other.read_bytes().splitlines(keepends=True)[:2]))
    ask(*BATCH, path, "-o", output, "--retry-errors")
    assert output.read_bytes() == other.read_bytes()


def test_a_record_that_a_kill_cut_short_is_written_anew(ask: Ask, tmp_path: Path) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(PROMPTS[:5]))
    ask(*BATCH, path, "-o", output)
    whole = output.read_bytes()
    for cut in (1, 5, 90, len(whole) // 2, len(whole) - 1, len(whole)):
        output.write_bytes(whole[:cut])
        assert not ask(*BATCH, path, "-o", output, "--resume").out
        assert output.read_bytes() == whole


def test_two_runs_do_not_write_to_one_file(ask: Ask, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with running(*BATCH, "-o", str(output)) as process:
        assert process.stdin is not None
        process.stdin.write(lines(PROMPTS[:1]))
        process.stdin.flush()
        limit = time.monotonic() + TIMEOUT
        while (not output.exists() or not output.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.01)
        assert "another run is writing to" in ask(*BATCH, "-o", output, "--resume", stdin=lines(PROMPTS), code=2).err
    assert len(records(output.read_bytes())) == 1


def test_a_run_that_goes_on_with_another_model_says_so(ask: Ask, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    ask(*BATCH, "-o", output, stdin=lines(PROMPTS[:2]))
    said = ask("batch", "-m", golden("llama2"), "-o", output, "--resume", stdin=lines(PROMPTS[:3]))
    assert said.err == f"warning: {output} was begun with {golden('gpt2')}, and goes on with {golden('llama2')}\n"


def test_a_dash_is_standard_output(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(records(ask(*BATCH, "-o", "-", stdin=lines(PROMPTS[:2])).out)) == 2
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("before", "more", "message"),
    [
        (b'{"line": 1, "id": 0}\n', [], "exists already"),
        (b"notes of mine", ["--resume"], "holds something other than records of a batch"),
        (b'{"line": 1, "id": 0}\nnotes\n', ["--resume"], "holds something other than records of a batch"),
        (b'{"line": 1, "id": 0}\n{"line": 1, "id": 0}\n', ["--resume"], "has two records of line 1"),
        (b'{"line": 1, "id": 5}\n', ["--resume"], "line 1 of the input is 0, but the output's record of it is of 5"),
        (b'{"line": 1, "id": 0}\n{"line": 9, "id": 8}\n', ["--resume"], "the input has 3 lines, but the output has a record of line 9"),
    ],
)
def test_a_file_that_is_something_else_is_left_alone(ask: Ask, tmp_path: Path, before: bytes, more: list[str], message: str) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(PROMPTS[:3]))
    output.write_bytes(before)
    assert message in ask(*BATCH, path, "-o", output, *more, code=2).err
    assert output.read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs --output"),
        (["--retry-errors"], "--retry-errors needs --output"),
        (["missing.jsonl"], "cannot read missing.jsonl: No such file"),
        (["."], "cannot read .: Is a directory"),
        (["-b", "0"], "--batch-size must be 1 or more, not 0"),
        (["--top-k", "-1"], "--top-k must be 0 or more"),
        (["-o", "."], "cannot write ."),
        (["-o", "nowhere/out"], "cannot write nowhere/out: No such file"),
        (["in.jsonl", "-o", "in.jsonl"], "--output in.jsonl is the input, too"),
        (["--resume", "-o", "/dev/full"], "--resume needs a plain file as --output"),
    ],
)
def test_what_cannot_be_meant(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(lines(PROMPTS[:1]))
    said = ask(*BATCH, *arguments, code=2)
    assert message in said.err
    assert not said.out


@pytest.mark.parametrize("redirected", [False, True])
def test_a_full_disk_leaves_whole_lines(ask: Ask, tmp_path: Path, redirected: bool) -> None:
    """A limit on the size of files is met in the middle of a record, like the end of a disk: nothing of it stays."""
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines(PROMPTS))
    whole = ask(*BATCH, path).out.encode()
    arguments = [TGEN, *BATCH, str(path), *([] if redirected else ["-o", str(output)])]
    with open(output, "wb") as file:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, timeout=TIMEOUT, env=environment(),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        )  # fmt: skip
    assert done.returncode == 1
    assert b"File too large\nhint: all written records are whole" in done.stderr
    found = output.read_bytes()
    assert whole.startswith(found)
    assert 1 < found.count(b"\n") == len(records(found))
    if not redirected:
        ask(*BATCH, path, "-o", output, "--resume")
        assert output.read_bytes() == whole


@pytest.mark.parametrize("more", [["-o", "/dev/full"], []])
def test_no_room_at_all(tmp_path: Path, more: list[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(PROMPTS))
    with open("/dev/full", "wb") as full, running(*BATCH, str(path), *more, stdout=full) as process:
        assert process.stderr is not None
        assert process.wait(TIMEOUT) == 1
        assert b"No space left on device\nhint: all written records are whole" in process.stderr.read()


def test_a_reader_that_has_had_enough() -> None:
    with running(*BATCH, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(lines(PROMPTS))
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


def test_an_input_that_vanishes_is_an_error_after_what_came_before_it(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_bytes(lines(PROMPTS))
    with running(*BATCH, str(pipe), str(file)) as process:
        assert process.stdout is not None and process.stderr is not None
        with open(pipe, "wb") as writer:
            file.unlink()
            writer.write(lines(PROMPTS[:3]))
        assert process.wait(TIMEOUT) == 2
        assert len(records(process.stdout.read())) == 3
        assert process.stderr.read().decode() == f"error: cannot read {file}: No such file or directory\nhint: check the path\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_was_written_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines({"prompt": "a", "max_tokens": 400, "ignore_eos": True} for _ in range(500)))
    with running(*BATCH, str(path), "-o", str(output), "-b", "4") as process:
        assert process.stderr is not None
        limit = time.monotonic() + TIMEOUT
        while (not output.exists() or not output.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == code
        assert process.stderr.read().decode() == f"note: the same command with --resume goes on with {output}\n"
    found = records(output.read_bytes())
    assert 0 < len(found) < 500


def test_a_signal_to_all_processes_is_no_fault_of_a_chat_template(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the process that renders, too."""
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(lines([{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}] * 300))
    model = chat_model(tmp_path / "model")
    with running("batch", "-m", str(model), "-t", "1", str(path), "-o", str(output), start_new_session=True) as process:
        limit = time.monotonic() + TIMEOUT
        while (not output.exists() or not output.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
    assert not [record for record in records(output.read_bytes()) if "error" in record]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_is_enough_while_nobody_reads_the_records(number: signal.Signals, code: int) -> None:
    with running(*BATCH, "--unordered") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        feeding = threading.Thread(target=feed, args=(process.stdin,))
        feeding.start()
        first = process.stdout.readline()
        time.sleep(1)  # until the pipe is full
        process.send_signal(number)
        assert process.wait(TIMEOUT) == code
        rest = process.stdout.read()
        feeding.join()
        assert len(rest) > 30_000, "the pipe was full"
        assert not process.stderr.read()
    found = (first + rest).split(b"\n")
    assert [json.loads(record)["line"] for record in found[:-1]] == [*range(1, len(found))]


def feed(stream: IO[bytes]) -> None:
    """Lines whose records are longer than what a pipe takes at once, without end."""
    with contextlib.suppress(OSError):
        while True:
            os.write(stream.fileno(), lines([{"prompt": 5, "id": "x" * 9000}]))


def test_a_signal_while_it_waits_for_lines() -> None:
    with running(*BATCH) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(lines(PROMPTS[:1]))
        process.stdin.flush()
        assert process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def test_written() -> None:
    written = Written()
    for number in (2, 1, 5, 4):
        assert number not in written
        written.add(number)
    assert [number for number in range(8) if number in written and number] == [1, 2, 4, 5]
    assert (written.all_up_to, written.highest, len(written)) == (2, 5, 4)
    written.add(3)
    assert (written.all_up_to, written.highest, len(written)) == (5, 5, 5)


def test_count_lines(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a\nb\n")
    two.write_bytes(b"a\n\nb")
    assert count_lines([one, two]) == 5
    assert count_lines([]) is count_lines([one, Path("-")]) is None
