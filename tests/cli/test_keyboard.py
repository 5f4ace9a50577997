"""A person types at a terminal that can move its cursor: any script, several lines, pastes, history, completion, keys, signals."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import TIMEOUT, golden
from tests.cli.talking import OPTIONS, Terminal, chat_model, terminal
from tests.sweeps import sweep
from tgen.ui.dialogue.history import MOST_BYTES, KeptHistory

ENTER, NEW_LINE, CTRL_C, CTRL_D, CTRL_R, TAB, UP = "\r", "\x1b\r", "\x03", "\x04", "\x12", "\t", "\x1b[A"
ANSWERED = "cut by length"

UNKNOWN = {"LC_ALL": "xx_XX.UTF-8"}
LOCALES = sweep([UNKNOWN, {"LC_ALL": "C"}, {"LC_ALL": "en_US.ISO-8859-1"}, {"LANG": "C.UTF-8"}], UNKNOWN.__eq__)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(chat_model(tmp_path_factory.mktemp("chat") / "model"))


@contextlib.contextmanager
def person_at(model: str, folder: Path, *options: str, **changes: str) -> Iterator[Terminal]:
    """A person who sees the first prompt."""
    changes = {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "TERM": "xterm"} | changes
    with terminal("chat", "-m", model, *OPTIONS, *options, piped=None, columns=80, patch="", **changes) as person:
        person.wait_for_prompt()
        yield person


def said(person: Terminal, path: Path) -> list[str]:
    """The user's messages so far, as /save writes them."""
    person.type(f"/save {path}{ENTER}")
    person.wait_for("messages written")
    person.wait_for_prompt()
    return [message["content"] for message in json.loads(path.read_text("utf-8")) if message["role"] == "user"]


def send(person: Terminal, text: str, shown: str = ANSWERED) -> None:
    person.type(text)
    person.wait_for(shown)
    person.wait_for_prompt()


@pytest.mark.parametrize("locale", LOCALES)
def test_any_script_in_any_locale(model: str, tmp_path: Path, locale: dict[str, str]) -> None:
    text = "日本語 한국어 🎉👩‍👩‍👧 é привет שלום"
    with person_at(model, tmp_path, "-n", "1", **locale) as person:
        person.type(text)
        assert person.wait_for("日本語.*🎉")
        send(person, ENTER)
        assert said(person, tmp_path / "talk.json") == [text]
        person.type(CTRL_D)
        assert person.process.wait(TIMEOUT) == 0


def test_several_lines(model: str, tmp_path: Path) -> None:
    with person_at(model, tmp_path, "-n", "1") as person:
        send(person, f"one{NEW_LINE}two\\{ENTER}three{ENTER}")
        send(person, f'"""/four{ENTER}five"""{ENTER}')
        assert said(person, tmp_path / "talk.json") == ["one\ntwo\nthree", "/four\nfive"]


def test_a_paste_of_a_thousand_lines_is_one_message(model: str, tmp_path: Path) -> None:
    lines = [f"{number} 行" for number in range(1000)]
    with person_at(model, tmp_path, "-n", "1", "--overflow", "truncate-left") as person:
        assert "\x1b[?2004h" in person.raw  # asks the terminal to tell what is pasted
        person.type("\x1b[200~/" + "\n".join(lines) + "\x1b[201~")
        person.wait_for("999 行")
        send(person, ENTER, "this message alone has")
        person.type(UP)
        person.wait_for("999 行")
        person.type(CTRL_C)
        person.wait_for_prompt()
        send(person, f"\x1b[200~/one\r\ntwo\x1b[201~{ENTER}")  # a slash in front of several lines makes no command
        assert said(person, tmp_path / "talk.json") == ["/one\ntwo"]


def test_history_is_kept_and_searched(model: str, tmp_path: Path) -> None:
    with person_at(model, tmp_path, "-n", "1") as person:
        send(person, f"first{NEW_LINE}message{ENTER}")
        send(person, f"second{ENTER}")
    path = tmp_path / "tgen" / "chat_history"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with person_at(model, tmp_path, "-n", "1") as person:
        person.type(f"{CTRL_R}fir")
        person.wait_for("message")
        person.type(CTRL_C)  # ends the search alone
        send(person, f"sec{UP}{ENTER}")
        person.type(f"{CTRL_R}fir")
        person.wait_for("message")
        send(person, f"{ENTER}{ENTER}")
        assert said(person, tmp_path / "talk.json") == ["second", "first\nmessage"]
    with person_at(model, tmp_path, "-n", "1", "--no-history") as person:
        send(person, f"secret{ENTER}")
        send(person, f"{UP}{ENTER}")
        assert said(person, tmp_path / "talk.json") == ["secret"] * 2
    assert "secret" not in path.read_text("utf-8")


def test_a_long_history_loses_its_older_half_and_a_bad_one_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    history = KeptHistory(path)
    for number in range(6):
        history.store_string(f"{number}\n" + "x" * (MOST_BYTES // 5))
    assert [text[0] for text in KeptHistory(path).load_history_strings()] == ["5", "4", "3"]
    assert list(path.parent.iterdir()) == [path]
    folder = KeptHistory(tmp_path)
    folder.store_string("lost")
    assert list(folder.load_history_strings()) == []


def test_tab_completes_commands_files_and_models(model: str, tmp_path: Path) -> None:
    (tmp_path / "a talk.json").write_text('[{"role": "user", "content": "Hi"}]')
    (tmp_path / "tgen").mkdir()
    (tmp_path / "tgen" / "config.toml").write_text(f'[aliases]\nmine = "{golden("qwen3")}"\n')
    with person_at(model, tmp_path, XDG_CONFIG_HOME=str(tmp_path)) as person:
        send(person, f"/lo{TAB}{tmp_path}/a{TAB}{ENTER}", "1 messages read from .*/a talk.json")
        send(person, f"/mo{TAB}mi{TAB}{ENTER}", "qwen3 has no chat template")
        person.type(f"/{TAB}")
        person.wait_for("/tokens")


@pytest.mark.long
def test_vi_keys_where_readline_has_them_and_emacs_keys_by_option(model: str, tmp_path: Path) -> None:
    typed = f"abc\x1b0xA!{ENTER}"  # delete the first character, go on at the end
    (tmp_path / ".inputrc").write_text("set bell-style none\nset editing-mode vi\n")
    for options, wanted in (((), "bc!"), (("--keys", "emacs"), None)):
        with person_at(model, tmp_path, "-n", "1", *options, INPUTRC="") as person:
            if wanted is None:
                send(person, f"abc\x01x{ENTER}")
            else:
                send(person, typed)
            assert said(person, tmp_path / "talk.json") == [wanted or "xabc"]


def test_edit_undo_and_tokens(model: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with person_at(model, tmp_path, "-n", "1") as person:
        send(person, f"one{ENTER}")
        send(person, f"two{NEW_LINE}three{ENTER}")
        send(person, f"/edit{ENTER}", "in the place of your last message")
        send(person, f"!{ENTER}")
        assert said(person, path) == ["one", "two\nthree!"]
        send(person, f"/edit{ENTER}", "Ctrl-C leaves it as it was")
        person.type(CTRL_C)
        person.wait_for_prompt()
        assert said(person, path) == ["one", "two\nthree!"]
        send(person, f"/undo{ENTER}", "taken back: two three!")
        assert said(person, path) == ["one"]
        send(person, f"/tokens{ENTER}", r"\d+ of 4,000 tokens used \(1%\), 2 messages")
        send(person, f"/model{ENTER}", "model · context 4000")


def test_copy_hands_the_answer_to_the_terminal(model: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with person_at(model, tmp_path) as person:
        send(person, f"one{ENTER}")
        said(person, path)
        send(person, f"/copy{ENTER}", "characters sent to the terminal's clipboard")
        [sent] = re.findall("\x1b]52;c;([A-Za-z0-9+/=]*)\x07", person.raw)
    assert base64.b64decode(sent).decode("utf-8") == json.loads(path.read_text("utf-8"))[-1]["content"]


@pytest.mark.long
def test_another_model_goes_on_with_the_conversation(model: str, tmp_path: Path) -> None:
    other = chat_model(tmp_path / "other", "{% for m in messages %}{{ m.content }}|{% endfor %}")
    with person_at(model, tmp_path, "--system", "Be kind") as person:
        send(person, f"one{ENTER}")
        send(person, f"/model {other}{ENTER}", "other · context 4000")
        send(person, f"two{ENTER}")
        assert said(person, tmp_path / "talk.json") == ["one", "two"]
    assert json.loads((tmp_path / "talk.json").read_text("utf-8"))[0] == {"role": "system", "content": "Be kind"}


def test_ctrl_c_stops_an_answer_and_then_the_line_and_then_leaves(model: str, tmp_path: Path) -> None:
    with person_at(model, tmp_path, "--temperature", "1", "-n", "3900", "--seed", "1", "--no-history") as person:
        person.type(f"Hello{ENTER}")
        person.wait_for("Hello\\s*\n.{3}")
        person.type(CTRL_C)
        person.wait_for(r"interrupted · seed 1")
        person.wait_for_prompt()
        person.type("half a line")
        person.wait_for("half a line")
        person.type(CTRL_C)
        person.wait_for_prompt()
        send(person, CTRL_C, "Ctrl-C once more leaves")
        send(person, f"/clear{ENTER}", "forgotten")
        send(person, CTRL_C, "Ctrl-C once more leaves")
        person.type(CTRL_C)
        assert person.process.wait(TIMEOUT) == 130
    assert not (tmp_path / "tgen").exists()


def test_a_signal_leaves_the_terminal_as_it_was(model: str, tmp_path: Path) -> None:
    with person_at(model, tmp_path) as person:
        person.type("half")
        person.wait_for("half")
        assert not termios.tcgetattr(person.master)[3] & termios.ICANON
        person.process.send_signal(signal.SIGTERM)
        assert person.process.wait(TIMEOUT) == 143
        assert termios.tcgetattr(person.master)[3] & termios.ICANON
        assert termios.tcgetattr(person.master)[3] & termios.ECHO


@pytest.mark.long
def test_the_terminal_may_change_its_size(model: str, tmp_path: Path) -> None:
    with person_at(model, tmp_path) as person:
        person.type("word " * 20)
        for size in ((24, 20), (5, 10), (60, 200)):
            termios.tcsetwinsize(person.master, size)
            os.killpg(person.process.pid, signal.SIGWINCH)
            person.type("x")
            person.wait_for("x")
        send(person, ENTER)
        assert said(person, tmp_path / "talk.json") == ["word " * 20 + "xxx"]


def test_piped_text_goes_before_the_first_message_that_is_typed(model: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with terminal("chat", "-m", model, *OPTIONS, "--no-history", TERM="xterm", piped="/exit\n日本\n") as person:
        person.wait_for("8 characters of standard input go before your first message")
        person.wait_for_prompt()
        send(person, f"What is it?{ENTER}")
        assert said(person, path) == ["/exit\n日本\nWhat is it?"]
        send(person, f"/undo{ENTER}", "taken back")
        send(person, f"More{ENTER}")
        assert said(person, path) == ["More"]
    with terminal("chat", "-m", model, *OPTIONS, piped="Notes\n") as person:  # TERM=dumb
        person.wait_for("> ")
        person.type("\n")
        person.wait_for(ANSWERED)
        person.type(f"/save {path}\n")
        person.wait_for("2 messages written")
    assert json.loads(path.read_text("utf-8"))[0]["content"] == "Notes"


def test_lines_of_a_pipe_are_messages_where_they_are_asked_to_be(model: str) -> None:
    with terminal("chat", "-m", model, *OPTIONS, "--lines", TERM="xterm", piped="One\n/two\n") as person:
        for _ in range(2):
            person.wait_for(ANSWERED)
        assert person.process.wait(TIMEOUT) == 0
        assert "\x1b[?2004h" not in person.raw
