"""The command that --verbose prints writes the same text again, whatever was asked for and however the prompt came."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import TGEN, TIMEOUT, environment, golden
from tests.sweeps import sweep
from tgen.checkpoint.resolve import shipped_folder

PROMPTS = [
    "Once upon a time",
    'it\'s "so" $HOME `x` \\n !!',
    "-n 5",
    "--help",
    "-",
    "",
    "two\nlines\n\n",
    "\ttab é 🎉 \x1b[1m \u202e",
    "a\0b%d\\",
]
STOPS = ["\n", "it's", 'say "no"', "a\tb", "-x", "\\n", "é🎉", "$(x)"]
TEMPLATE = "{% for m in messages %}<{{m.role}}>: {{m.content}}\n{% endfor %}{% if add_generation_prompt %}<assistant>: {% endif %}"
# What a shell is given in place of tgen: it writes down what it was called with.
RECORD = 'tgen() { printf "%s\\0" "$@" >"$ARGUMENTS"; cat >"$INPUT"; }; '


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped story writer with a chat template."""
    folder, shipped = tmp_path_factory.mktemp("chat"), shipped_folder()
    assert shipped is not None
    for file in (shipped / "storyteller").iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    config = json.loads((shipped / "storyteller" / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return str(folder)


def draw(rng: random.Random, chat_model: str) -> tuple[list[str], dict[str, str], str, bytes]:
    """A model and options, environment variables, and a prompt with where it comes from."""
    words = ["-n", str(rng.randint(2, 7))]
    variables = {}
    model = rng.choice([None, "english-french", "english-french", chat_model, golden("gpt2"), golden("t5")])
    if model == chat_model and rng.random() < 0.7:
        words += rng.choice([["--chat"], ["--system", 'You\'re a\n"fox".']])
    if model is not None and rng.random() < 0.3:
        variables["TGEN_MODEL"] = model
    elif model is not None:
        words += ["-m", model]
    numbers: dict[str, list[float]] = {
        "temperature": [0, 0.7, 1.5],
        "top-k": [0, 5],
        "top-p": [1, 0.5],
        "min-p": [0, 0.1],
        "presence-penalty": [0, 0.5, -0.5],
        "frequency-penalty": [0.0, 0.3],
        "repetition-penalty": [1, 1.3],
        "no-repeat-ngram-size": [0, 2],
        "dry-multiplier": [0, 0.8],
        "top-n-sigma": [0, 1],
        "typical-p": [1, 0.6],
        "xtc-probability": [0, 0.5],
        "mirostat-tau": [0, 3],
        "min-new-tokens": [0, 2],
        "seed": [0, 2**64 - 1],
    }
    beams = rng.random() < 0.3
    for name, values in rng.sample(sorted(numbers.items()), rng.randint(0, 7)):
        excluded = beams and name not in ("repetition-penalty", "no-repeat-ngram-size", "min-new-tokens", "seed")
        value = str(values[0] if excluded else rng.choice(values))
        if rng.random() < 0.3:
            variables[f"TGEN_{name.upper().replace('-', '_')}"] = value
        else:
            words += [f"--{name}", value]
    words += rng.choice([[], [], ["--echo"]])
    if beams:
        words += ["--num-beams", "3", *rng.choice([[], ["--samples", "2"]])]
    elif rng.random() < 0.3:
        words += ["--samples", "2"]
    if not beams and rng.random() < 0.3 and model in (None, chat_model):
        words += rng.choice(
            [["--regex", "[a-z']{3}"], ["--choices", '["yes, \\"x\\"", "it\'s"]'], ["--json-schema", '{"enum": ["a\'b", 1]}']]
        )
    else:
        words += [word for stop in rng.sample(STOPS, rng.randint(0, 2)) for word in ("--stop", stop)]
        words += rng.choice([[], ["--ignore-eos"]])
    words += rng.choice([[], ["--ban", 'e "x"\n', "--ban", "and"], ["--logit-bias", '"7"=9', "--logit-bias", "5=-1.5"]])
    words += rng.choice([[], ["--samplers", "top-k,temperature,xtc"], ["--dry-sequence-breaker", "none"]])
    words += rng.choice([[], ["--overflow", "truncate-left"], ["--dtype", "float32", "-t", "1"]])
    prompt = rng.choice(PROMPTS)
    if prompt == "-" or "\0" in prompt or rng.random() < 0.3:
        return words, variables, "-", f"{prompt}\n".encode()
    return words, variables, prompt, rng.choice([b"", b"", b"before's\n\n"])


def recorded(command: str, folder: Path) -> tuple[list[str], bytes]:
    """What a shell makes of a command: the arguments and the standard input that tgen gets."""
    paths = {"ARGUMENTS": str(folder / "arguments"), "INPUT": str(folder / "input")}
    subprocess.run(["bash", "-c", RECORD + command], env={**os.environ, **paths}, stdin=subprocess.DEVNULL, check=True, timeout=TIMEOUT)
    words = (folder / "arguments").read_bytes().decode().split("\0")[:-1]
    return words, (folder / "input").read_bytes()


def printed_command(err: str) -> str:
    """The command among the lines of --verbose."""
    [line] = [line for line in err.splitlines() if "tgen generate --model" in line]
    return line


@pytest.mark.parametrize("number", sweep(range(30), lambda number: number < 12))
def test_the_printed_command_repeats_the_text(
    number: int, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_model: str
) -> None:
    words, variables, prompt, stdin = draw(random.Random(number), chat_model)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    first = ask("generate", *words, "-v", "--", prompt, stdin=stdin)
    if number % 2:
        for variable in variables:
            monkeypatch.delenv(variable)
    again, piped = recorded(printed_command(first.err), tmp_path)
    assert ask(*again, stdin=piped).out == first.out


AWKWARD = ["it's\n\ttwo 'lines' \\", "--stop", "\n", "--stop", "it's", "--samples", "2"]
PLAIN = [
    ["-m", "english-french", "Good morning, my friend."],
    ["A", "--num-beams", "3"],
    ["A", "--echo", "--samples", "2", "--no-reasoning"],
]


@pytest.mark.parametrize("words", sweep([AWKWARD, *PLAIN], AWKWARD.__eq__))
def test_as_processes(words: list[str]) -> None:
    """The same with a person's shell on both sides, and variables that are still set."""
    repeat(["-n", "9", *words], b"", {"TGEN_TOP_P": "0.9"})


@pytest.mark.long
@pytest.mark.parametrize("number", range(1000, 1016))
def test_any_mix_as_processes(number: int, chat_model: str) -> None:
    words, variables, prompt, stdin = draw(random.Random(number), chat_model)
    repeat([*words, "--", prompt], stdin, variables)


def repeat(words: list[str], stdin: bytes, variables: dict[str, str]) -> None:
    """Run tgen, and then the command that it prints, each as a process of its own."""
    env = environment(**variables, PATH=f"{Path(TGEN).parent}:{os.environ['PATH']}")
    first = subprocess.run([TGEN, "generate", "-v", *words], env=env, input=stdin, capture_output=True, timeout=TIMEOUT)
    command = printed_command(first.stderr.decode())
    again = subprocess.run(["bash", "-c", command], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    assert (again.stdout, again.returncode) == (first.stdout, 0), again.stderr


def test_words_that_a_shell_reads_back() -> None:
    """Any characters, on one line and without a character that a terminal obeys, in any locale."""
    from tgen.ui.harmless import harmless
    from tgen.ui.report import shell_words

    rng = random.Random(1)
    alphabet = "ab01 -'\"\\$`!*%#~\n\t\r\x01\x1b\x7f\x85\u202e\u2066é日🎉"
    words = ["".join(rng.choices(alphabet, k=rng.randint(0, 8))) for _ in range(500)]
    line = shell_words(words)
    assert "\n" not in line
    assert harmless(line) == line
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], env={"LC_ALL": locale}, capture_output=True, check=True)
        assert done.stdout.decode().split("\0")[:-1] == words
    assert shell_words(["plain", "two words"]) == shlex.join(["plain", "two words"])
