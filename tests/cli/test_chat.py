"""`tgen chat` and `tgen generate --chat`: in a pipe, at a terminal, and with models that are not made for it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, TIMEOUT, environment, golden, on_terminal, running, tgen
from tests.cli.talking import OPTIONS, STRICT, chat_model, terminal
from tgen.ui.harmless import harmless


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(chat_model(tmp_path_factory.mktemp("chat") / "model"))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose template takes no system message."""
    return str(chat_model(tmp_path_factory.mktemp("chat") / "strict", STRICT))


def answers(said: str, *lines: str) -> list[str]:
    """The answers in an output, if every one is on a line of its own."""
    assert said.endswith("\n")
    found = said[:-1].split("\n")
    assert len(found) == len(lines)
    return found


# tgen generate --chat


def test_a_prompt_is_rendered(ask: Ask, model: str) -> None:
    rendered = ask("generate", "user: Hello\nassistant:", "-m", model, *OPTIONS, "--json").json
    chatted = ask("generate", "Hello", "--chat", "-m", model, *OPTIONS, "--json").json
    assert chatted["choices"] == rendered["choices"]
    assert chatted["usage"] == rendered["usage"]
    rendered = ask("generate", "system: Be kind\nuser: Hello\nassistant:", "-m", model, *OPTIONS, "--json").json
    assert ask("generate", "Hello", "--system", "Be kind", "-m", model, *OPTIONS, "--json").json["choices"] == rendered["choices"]


def test_echo_is_what_was_given(ask: Ask, model: str) -> None:
    text = ask("generate", "Hello", "--chat", "-m", model, *OPTIONS).out
    assert ask("generate", "Hello", "--chat", "-m", model, *OPTIONS, "--echo").out == f"Hello{text}"


def test_a_terminal_shows_the_prompt_and_not_the_template(model: str) -> None:
    _, shown = on_terminal("generate", "Hello", "--chat", "-m", model, "--temperature", "0", "-n", "2")
    assert shown.startswith("\x1b[2mHello\x1b[0m")
    assert "assistant" not in shown


def test_the_printed_command_repeats_the_text(model: str) -> None:
    done = tgen("generate", "Hello", "--system", "it's\nfine", "-v", "-n", "5", "-m", model)
    [command] = re.findall(r"^tgen generate .*", done.stderr.decode(), flags=re.MULTILINE)
    assert r"--system $'it\'s\nfine'" in command
    shell = ["bash", "-c", command.replace("tgen", shlex.quote(TGEN), 1)]
    again = subprocess.run(shell, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("arguments", [("generate", "x", "--chat"), ("generate", "x", "--system", "s"), ("chat",)])
def test_a_model_without_a_template_is_refused_before_torch_is_imported(arguments: tuple[str, ...]) -> None:
    done = tgen(*arguments, "-m", golden("qwen3"), check=2, env=environment(PYTHONPROFILEIMPORTTIME="1"))
    assert b"qwen3 has no chat template" in done.stderr
    assert b"tgen generate" in done.stderr
    assert b"| torch" not in done.stderr


def test_a_template_has_its_say(ask: Ask, strict: str) -> None:
    for arguments in (("generate", "x", "--system", "s"), ("chat", "--system", "s")):
        assert "System role not supported" in ask(*arguments, "-m", strict, code=2).err


def test_a_broken_template_names_file_and_line(ask: Ask, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "broken", "\n{{ a.b.c }}")
    said = ask("generate", "x", "--chat", "-m", folder, code=3)
    assert f"{folder / 'chat_template.jinja'}, line 2: 'a' is undefined" in said.err


def test_an_encoder_is_refused(ask: Ask) -> None:
    assert "needs a model that is decoder-only" in ask("chat", "-m", golden("t5"), code=2).err


# A pipe


def test_each_line_is_a_message(ask: Ask, model: str) -> None:
    said = ask("chat", "-m", model, *OPTIONS, stdin=b"Hello\n\nWho?\n")
    first = ask("generate", "Hello", "--chat", "-m", model, *OPTIONS).out
    second = ask("generate", f"user: Hello\nassistant: {first}<|end|>\nuser: Who?\nassistant:", "-m", model, *OPTIONS).out
    assert said.out == f"{first}\n{second}\n"
    assert said.err == ""


def test_a_line_of_data_is_no_command(ask: Ask, model: str, tmp_path: Path) -> None:
    """Whatever it begins with: a script that feeds lines from elsewhere must not write files."""
    path = tmp_path / "talk.json"
    lines = [f"/save {path}", "/exit", "//one", "/nonsense", "/"]
    said = ask("chat", "-m", model, *OPTIONS, stdin="\n".join(lines).encode())
    assert len(answers(said.out, *lines)) == len(lines)
    assert said.err == ""
    assert not path.exists()
    for line in ("/exit", "//one"):
        alone = ask("generate", line, "--chat", "-m", model, *OPTIONS).out
        assert ask("chat", "-m", model, *OPTIONS, stdin=line.encode()).out == f"{alone}\n"


def test_a_byte_order_mark_is_no_part_of_the_first_message(ask: Ask, model: str) -> None:
    plain = ask("chat", "-m", model, *OPTIONS, stdin=b"Hello\n").out
    assert ask("chat", "-m", model, *OPTIONS, stdin=b"\xef\xbb\xbfHello\n").out == plain


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (b"one\\\ntwo\n", "one\ntwo"),
        (b'"""one\n\n two"""\n', "one\n\n two"),
        (b'"""\n/one\n"""\n', "/one"),
        (b"//one\n", "//one"),
        (b"one\r\n", "one"),
        (b"one\\", "one\n"),
        (b'"""one', "one"),
    ],
)
def test_messages_of_several_lines(ask: Ask, model: str, script: bytes, message: str) -> None:
    said = ask("chat", "-m", model, *OPTIONS, stdin=script)
    assert said.out == ask("generate", f"user: {message}\nassistant:", "-m", model, *OPTIONS).out + "\n"


def test_a_mistake_is_told_and_the_conversation_goes_on(model: str) -> None:
    script = b"\xff\nHello\n" + b"x" * 9000 + b"\nHello\n"
    done = tgen("chat", "-m", model, *OPTIONS, stdin=script, check=2)
    assert len(answers(done.stdout.decode(), "Hello", "Hello")) == 2
    said = done.stderr.decode()
    assert "line 1 is not UTF-8 at byte 0" in said
    assert re.search(r"the conversation has \d+ tokens with this message, the model's context is 4000", said)
    assert said.count("error: ") == said.count("hint: ") == 2


def test_what_the_model_says_is_bytes_in_a_pipe_and_flushed(model: str) -> None:
    """A script may wait for an answer before it goes on."""
    with running("chat", "-m", model, *OPTIONS) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"Hello\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_a_signal_ends_a_script(model: str) -> None:
    with running("chat", "-m", model, "--temperature", "1", "-n", "3900", "--seed", "1", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello\nHello\nHello\n" * 99)
        process.stdin.flush()
        process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


# A terminal


def test_a_conversation_at_a_terminal(model: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with terminal("chat", "-m", model, *OPTIONS, "--seed", "5") as person:
        person.wait_for("context 4000 · /help lists commands, Ctrl-D leaves\n> ")
        person.type("Hello\n")
        assert "(" not in person.wait_for(r"\d+ \+ 6 tokens · \d+ tokens/s · first after [0-9.]+ s · cut by length · seed 5\n> ")
        person.type("Who?\n")
        person.wait_for(r"\d+ \(\d+ cached\) \+ 6 tokens .* seed 6\n> ")
        person.type(f"/save {path}\n")
        person.wait_for("4 messages written to .*\n> ")
        person.type("/help\n")
        person.wait_for("/load FILE(.|\n)*\n> ")
        person.type("\x04")
        assert person.process.wait(TIMEOUT) == 0
    messages = json.loads(path.read_text("utf-8"))
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2


def test_commands(model: str, ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    answer = r"\n((?:.|\n)*?)\n\d+ (?:\(\d+ cached\) )?\+ \d+ tokens.*\n> "

    def said(*lines: str) -> str:
        for line in lines:
            person.type(f"{line}\n")
            shown = person.wait_for(answer if line in ("Hello", "/retry", "//Hello", "Again", "/edit Hello") else r"\n(.|\n)*?\n> ")
        found = re.search(answer, shown)
        assert found is not None
        return found[1]

    with terminal("chat", "-m", model, *OPTIONS) as person:
        person.wait_for("> ")
        plain = said("Hello")
        kind = said(f"/save {path}", "/clear", "/system Be kind", "Hello")
        again = said(f"/load {path}", "/retry")
        anew = said("/clear", "Hello")
        person.type("/edit Who?\n")
        other = re.search(answer, person.wait_for(answer))
        undone = said("Again", "/undo", "/edit Hello")
        slash = said("/clear", "//Hello")
        person.type("/exit\n")
        assert person.process.wait(TIMEOUT) == 0
    assert other is not None
    assert other[1] != plain == again == anew == undone
    assert kind == harmless(ask("generate", "Hello", "--system", "Be kind", "-m", model, *OPTIONS).out)
    assert slash == harmless(ask("generate", "/Hello", "--chat", "-m", model, *OPTIONS).out)
    question, answered = json.loads(path.read_text("utf-8"))
    assert question == {"role": "user", "content": "Hello"}
    assert (answered["role"], harmless(answered["content"])) == ("assistant", plain)


def test_a_mistaken_command_is_told(model: str) -> None:
    mistakes = {
        "/nonsense": "no command /nonsense",
        "/load missing.json": "cannot read missing.json",
        "/load /dev/zero": "/dev/zero is not a file",
        "/save": "needs the name of a file",
        "/save ~no-such-user/x": "~no-such-user/x: Could not determine home directory",
        "/save " + "x" * 300: "File name too long",
        "/retry": "nothing to answer again",
        "/undo": "nothing to answer again",
        "/edit": "nothing to answer again",
        "/edit x": "nothing to answer again",
        "/copy": "no answer to copy",
        "/model nothing": "no model 'nothing'",
        "/model english-french": "needs a model that is decoder-only",
    }
    with terminal("chat", "-m", model, *OPTIONS) as person:
        person.wait_for("> ")
        for command, words in mistakes.items():
            person.type(f"{command}\n")
            person.wait_for(f"error: .*{words}.*\nhint: .*\n> ")
        person.type("/exit\n")
        assert person.process.wait(TIMEOUT) == 0


def test_control_characters_are_shown_harmlessly(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "wild")
    with terminal("chat", "-m", str(folder), "--temperature", "99", "--top-k", "0", "--top-p", "1", "--seed", "1", "-n", "150") as person:
        person.wait_for("> ")
        person.type("Hello [/b]\n")
        answer = person.wait_for(r"(.|\n)*tokens/s")
        assert not set(answer) & {chr(code) for code in range(32) if chr(code) not in "\n\t\r"}


# A model that always answers in Markdown.
MARKDOWN = r"""
from tgen.engine.generator import Generator
free = Generator.resolve
answer = "# Head\n\n- *one*\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
Generator.resolve = lambda self, asked, environment=None: free(self, {**asked, "choices": [answer], "max_new_tokens": 90}, environment)
"""


def test_markdown_in_a_conversation() -> None:
    """Each answer is laid out anew; what was typed is not."""
    with terminal("chat", "--markdown", "--color", "never", columns=40, patch=MARKDOWN) as person:
        person.wait_for("> ")
        for _ in range(2):
            person.type("Say *it*\n")
            lines = [line.strip() for line in person.wait_for(r"(.|\n)*tokens/s").split("\n")]
            assert {"Say *it*", "Head", "• one", "• two", "a  b", "1  2"} <= {*lines}
            assert not any(character in line for line in lines for character in "|#")
            person.wait_for("> ")
        person.type("/exit\n")
        assert person.process.wait(TIMEOUT) == 0
    with terminal("chat", "--color", "never", patch=MARKDOWN) as person:
        person.wait_for("> ")
        person.type("Say it\n")
        assert "# Head\n\n- *one*\n" in person.wait_for(r"(.|\n)*tokens/s"), "off by default"


def test_a_pipe_in_and_a_terminal_out(model: str) -> None:
    master, slave = os.openpty()
    with running("chat", "-m", model, *OPTIONS, "-q", stdout=slave, stderr=slave) as process:
        assert process.stdin is not None
        process.stdin.write(b"Hello\n")
        process.stdin.close()
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        assert process.wait() == 0
        timer.cancel()
    os.close(slave)
    assert os.read(master, 65536).startswith(b"Hello\r\n")
    os.close(master)
