"""`--template-arg`: values for the variables of a chat template, in every command that renders one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.talking import OPTIONS, chat_model

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if thinking is false %}<no>{% endif %}assistant:"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(chat_model(tmp_path_factory.mktemp("arguments") / "model", TEMPLATE))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model, whose template says without an argument what the other says with it."""
    return str(chat_model(tmp_path_factory.mktemp("arguments") / "wanted", TEMPLATE.replace("thinking is false", "true")))


@pytest.mark.parametrize(
    ("command", "stdin"),
    [
        (["generate", "Hello", "--chat"], ""),
        (["generate", "Hello", "--system", "Be kind"], ""),
        (["chat"], "Hello\n"),
        (["batch"], json.dumps({"messages": [{"role": "user", "content": "Hello"}]}) + "\n"),
    ],
)
def test_an_argument_reaches_the_template(ask: Ask, model: str, wanted: str, command: list[str], stdin: str) -> None:
    options = OPTIONS if command != ["batch"] else OPTIONS[:4]

    def text(folder: str, *arguments: str) -> str:
        said = ask(*command, "-m", folder, *options, *arguments, stdin=stdin.encode())
        return str(said.json["choices"][0]["message"]["content"]) if command == ["batch"] else said.out

    assert text(model, "--template-arg", "thinking=false") == text(wanted)
    assert text(model, "--template-arg", "thinking=false") != text(model)
    assert text(model, "--template-arg", "thinking=false", "--template-arg", "thinking=true") == text(model)


def test_a_line_of_a_batch_goes_before_the_command(ask: Ask, model: str) -> None:
    said = {"messages": [{"role": "user", "content": "Hello"}]}
    lines = [said, {**said, "chat_template_kwargs": {"thinking": True}}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    first, second = ask("batch", "-m", model, *OPTIONS[:4], "--template-arg", "thinking=false", stdin=data).out.splitlines()
    plain = ask("batch", "-m", model, *OPTIONS[:4], stdin=data).out.splitlines()
    assert json.loads(first)["choices"] != json.loads(plain[0])["choices"]
    assert json.loads(second)["choices"] == json.loads(plain[1])["choices"]


@pytest.mark.parametrize("command", [["generate", "a", "--chat"], ["chat"], ["batch"]])
@pytest.mark.parametrize(
    ("word", "error", "hint"),
    [
        ("other=1", "the model's chat template has no variable 'other'", "its variables are thinking"),
        ("messages=[]", "the template argument 'messages' is set by tgen itself", "leave it out"),
        ("thinking", "--template-arg 'thinking' is not KEY=VALUE", "for example"),
    ],
)
def test_what_is_no_argument(ask: Ask, model: str, command: list[str], word: str, error: str, hint: str) -> None:
    said = ask(*command, "-m", model, "--template-arg", word, stdin=b'{"messages": [{"role": "user", "content": "a"}]}\n', code=2)
    assert said.out == ""
    assert f"error: {error}" in said.err and f"hint: {hint}" in said.err


def test_a_template_that_takes_too_much_is_one_error(ask: Ask, tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "model", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}" + TEMPLATE)
    said = ask("generate", "a", "--chat", "-m", folder, code=3)
    assert f"error: {folder / 'chat_template.jinja'}: it takes too much time or memory\nhint: " in said.err
    assert len(said.err.splitlines()) == 2
