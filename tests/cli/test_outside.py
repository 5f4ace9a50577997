"""Whatever comes from outside - bytes, arguments, variables, sentence pairs - works, or is refused in one clear line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.cli.processes import environment, golden, tgen
from tests.fuzz.runner import Ended, Worker, verdict
from tests.sweeps import sweep
from tgen.errors import UsageError
from tgen.options import DECLARED
from tgen.train.inputs import read_pairs

few = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHORT = ("-n", "2", "-m", golden("gpt2"))
SEEDED = ["generate", "Once", "--seed", "1", *SHORT]

UTF8 = st.text(st.characters(codec="utf-8"), max_size=30).map(str.encode)
HOSTILE = st.sampled_from(
    [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xef\xbb\xbf", b"\0", b"\r\n", b"\n", b"\t", b"\x1b[2J"]
)
BYTES = st.lists(UTF8 | HOSTILE | st.binary(max_size=4), max_size=4).map(b"".join)


def assert_clear(ended: Ended, *codes: int) -> None:
    """It ended as it should, and if not with 0, with one of these exit codes."""
    assert verdict(ended, codes=codes) is None, (ended.code, ended.err)


def invalid_at(data: bytes) -> int | None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


@few
@given(BYTES)
@example(b"")
@example(b"\n")
@example(b"\xef\xbb\xbfa")
@example(b"\0" * 50)
@example(b"a" * 100_000)
@example(b"a\xed\xa0\x80")
@pytest.mark.long
def test_a_prompt_of_any_bytes(worker: Worker, tmp_path: Path, data: bytes) -> None:
    """From standard input and from a file: all but a byte order mark comes back before the answer, or the first wrong byte is named."""
    (tmp_path / "prompt").write_bytes(data)
    for arguments in (["generate"], ["generate", "-f", str(tmp_path / "prompt")]):
        ended = worker.run(*arguments, "--echo", *SHORT, stdin=data)
        assert_clear(ended, 2, 5)
        text = data.removesuffix(b"\r\n" if data.endswith(b"\r\n") else b"\n")
        if (place := invalid_at(text)) is not None:
            assert ended.code == 2
            assert f"is not UTF-8 at byte {place}" in ended.err
            continue
        text = text.removeprefix(b"\xef\xbb\xbf")
        if ended.code == 0:
            assert ended.out.startswith(text)
        else:
            assert ended.code == (5 if len(text) > 2 else 2)


@few
@given(BYTES)
@pytest.mark.long
def test_lines_of_any_bytes(worker: Worker, data: bytes) -> None:
    assert_lines(worker, data)


def test_lines_of_which_one_is_no_text(worker: Worker) -> None:
    assert_lines(worker, b"a\n\n\xff\nb\n")


def assert_lines(worker: Worker, data: bytes) -> None:
    """As many lines out as in, up to the first that is no text."""
    ended = worker.run("translate", "-n", "2", "-m", golden("marian"), stdin=data)
    lines = data.split(b"\n")
    lines = lines if lines[-1] else lines[:-1]
    wrong = [number for number, line in enumerate(lines, start=1) if invalid_at(line.removesuffix(b"\r")) is not None]
    assert_clear(ended, 2)
    assert ended.code == (2 if wrong else 0)
    assert ended.out.count(b"\n") == (wrong[0] - 1 if wrong else len(lines))
    if wrong:
        assert f"line {wrong[0]} is not UTF-8" in ended.err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
KEYS = "prompt messages id echo stop top_k n temp seed regex choices json_schema overflow logprobs body url method custom_id x".split()
OBJECTS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3)
REQUESTS = st.builds(lambda one, other: {"prompt": "a", **one, **({"body": other} if len(one) == 2 else {})}, OBJECTS, OBJECTS)
LINES = st.lists(BYTES | (REQUESTS | OBJECTS | JSON).map(json.dumps).map(str.encode), max_size=5)


@settings(parent=few, max_examples=40)
@given(LINES)
@example(
    [b'{"prompt": "a"}', b"[" * 5000, b'{"prompt": "\\ud800"}', b'{"prompt": "a", "prompt": 1}', b'{"id": {"a": 1e999}, "prompt": "a"}']
)
@example(
    [b'{"prompt": "a", "seed": ' + b"9" * 400 + b"}", b'{"prompt": "a", "stop": [""]}', b'{"prompt": "a", "' + b"\x7f[2J" * 3000 + b'": 1}']
)
@pytest.mark.long
def test_a_batch_of_any_lines(worker: Worker, lines: list[bytes]) -> None:
    """Each line that is not blank is answered once, in order, by what was written or by what is wrong with it."""
    data = b"\n".join(lines)
    ended = worker.run("batch", *SHORT, "-b", "3", stdin=data)
    assert_clear(ended, 7)
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert [record["line"] for record in records] == [number for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    failed = [record for record in records if record.get("error")]
    assert ended.code == (7 if failed else 0)
    assert all("choices" in (record.get("response") or {"body": record})["body"] for record in records if record not in failed)
    assert all(record["error"]["message"] and len(record["error"]["message"]) < 1000 for record in failed)


NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1e400",
    "1e-400",
    "-0",
    "-0.0",
    "+1",
    "0x10",
    "1_000",
    "\u0661",
    "",
    " ",
    " 1",
    "1 ",
    "1e5",
    "1.0",
    "9" * 5000,
    "-" + "9" * 400,
    "true",
    "None",
    "[]",
    "--",
    "-",
    "\udcff",
    "\0",
    "\x1b[2J",
    "a\nb",
    "x" * 100_000,
    "1,5",
    "1%",
    str(2**31),
    str(2**63),
    str(2**64),
    str(10**30),
    "0.5",
    "2",
    "1e-320",
]
OPTIONS = (
    "--max-new-tokens --temperature --top-k --top-p --min-p --repetition-penalty --presence-penalty --frequency-penalty --num-beams --seed "
    "--no-repeat-ngram-size --samples --threads --logprobs --stop --overflow --device --dtype --color --model --file"
).split()


@settings(few, max_examples=80)
@given(st.sampled_from(OPTIONS), st.sampled_from(NUMBERS) | st.floats().map(repr) | st.integers().map(str) | st.text(max_size=20))
@example("--temperature", "5e-324")
@example("--repetition-penalty", "5e-324")
@example("--repetition-penalty", "1e308")
@example("--presence-penalty", "-1e308")
@example("--samples", "4096")
@example("--model", "~nobody-here/model")
@example("--file", "~nobody-here/text")
@example("--model", "a" * 5000)
@example("--file", "a" * 5000)
@pytest.mark.long
def test_an_option_of_any_value(worker: Worker, option: str, value: str) -> None:
    """A number that is none, a name that is none, a text that is none."""
    more = ["--json"] if option == "--logprobs" else []
    words = [] if option == "--file" else ["Once"]
    ended = worker.run("generate", *words, *SHORT, *more, f"{option}={value}")
    broken = option in ("--temperature", "--repetition-penalty", "--presence-penalty", "--frequency-penalty")
    assert_clear(ended, 2, *([3] if option == "--model" else []), *([4] if option == "--samples" else []), *([1] if broken else []))


@few
@given(
    st.sampled_from([["generate"], ["score"], ["tokenize"], ["tokenize", "--decode"], ["translate"], ["explain"], ["info"]]),
    st.text(max_size=60),
)
@example(["generate"], "\udcff")
@example(["generate"], "")
@example(["generate"], "\0")
@example(["generate"], "\ufeffa")
@example(["generate"], "a" * 120_000)
@example(["translate"], "\n\n\udc80")
@example(["info"], "\udcff")
@example(["info"], "\0")
@example(["score"], "")
@example(["tokenize", "--decode"], "9" * 9)
@pytest.mark.long
def test_an_argument_of_any_text(worker: Worker, command: list[str], text: str) -> None:
    model = [] if command == ["info"] else ["-m", golden("marian" if command == ["translate"] else "gpt2")]
    ended = worker.run(*command, *model, "--", text)
    assert_clear(ended, *([3] if command == ["info"] and text else [2, 5]))


VARIABLES = [f"TGEN_{name.upper()}" for name, option in DECLARED.items() if option.environment]
NEUTRAL: list[dict[str, str]] = [
    {"COLUMNS": "0"},
    {"COLUMNS": "-5"},
    {"COLUMNS": "wide"},
    {"COLUMNS": "9" * 30, "LINES": "-1"},
    {"TERM": "\x1b[2J"},
    {"TERM": ""},
    {"TERM": "x" * 5000},
    {"NO_COLOR": ""},
    {"LANG": "nowhere.UTF-99"},
    {"LC_ALL": "C"},
    {"OMP_NUM_THREADS": "many"},
    {"XDG_CACHE_HOME": "/proc/nothing"},
    {"HF_HOME": "\n"},
    {"HF_HUB_CACHE": "~nobody-here"},
    {"HF_HUB_CACHE": ""},
    {"HF_HUB_CACHE": "a" * 5000},
    {"TMPDIR": "/nowhere"},
    {"TGEN_TOP_K": ""},
    {"HOME": ""},
    {"HOME": "/proc/nothing"},
    {"PATH": ""},
    {"TGEN_NONSENSE": "1"},
]
TELLING: list[dict[str, str]] = [  # a width, a terminal, a locale, threads, a cache, an option, and no home
    {"COLUMNS": "wide"},
    {"TERM": ""},
    {"LANG": "nowhere.UTF-99"},
    {"OMP_NUM_THREADS": "many"},
    {"XDG_CACHE_HOME": "/proc/nothing"},
    {"TGEN_TOP_K": ""},
    {"HOME": "/proc/nothing"},
]


@few
@given(st.sampled_from(VARIABLES), st.sampled_from([value for value in NUMBERS if "\0" not in value]))
def test_a_variable_of_any_value(worker: Worker, variable: str, value: str) -> None:
    ended = worker.run("generate", "Once", "--seed", "1", *SHORT, variables=environment(**{variable: value}))
    assert_clear(ended, 2, 1)
    if ended.code == 2:
        assert variable in ended.err


@pytest.fixture(scope="module")
def usual(worker: Worker) -> bytes:
    """What SEEDED writes."""
    return worker.run(*SEEDED).out


@pytest.mark.parametrize(
    "changes", sweep(NEUTRAL, TELLING.__contains__), ids=lambda changes: " ".join(f"{key}={value[:20]!r}" for key, value in changes.items())
)
def test_variables_that_change_nothing(worker: Worker, usual: bytes, changes: Mapping[str, str]) -> None:
    """For the text, that is; on a terminal, too."""
    variables = environment(**changes)
    assert worker.run(*SEEDED, variables=variables).out == usual
    assert_clear(worker.run("models", variables=variables))
    assert_clear(worker.run("info", "missing", variables=variables), 3)
    for command in (SEEDED, ["explain", "Once", *SHORT], ["attention", "Once", "-m", golden("gpt2")]):
        ended = worker.on_terminal(*command, variables=variables)
        assert ended.code == 0, ended.out


def test_a_process_without_a_home_or_anything_else() -> None:
    """Nothing but the little that Python itself needs; the number of threads is one that torch would not understand."""
    done = tgen("generate", "Once", *SHORT, env={"OMP_NUM_THREADS": "-3", "MKL_NUM_THREADS": "x", "LANG": "nowhere.UTF-99", "TERM": ""})
    assert done.stdout
    assert b"Traceback" not in done.stderr


LINES = st.lists(
    st.sampled_from([b"a\tb", b"\t", b"a", b"", b" ", b"a\tb\tc", b"\t\t", b"a\t", b"\tb", b"a \t b", b"\0\t\0", "é\u2028x\tb".encode()])
    | BYTES
)


@settings(few, max_examples=300)
@given(LINES.map(b"\n".join))
def test_sentence_pairs_of_any_bytes(tmp_path: Path, data: bytes) -> None:
    """Every line that is not empty is a pair, or the first that is none is named by its number."""
    path = tmp_path / "pairs.tsv"
    path.write_bytes(data)
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1)]
    try:
        pairs = read_pairs(path)
    except UsageError as error:
        if (place := invalid_at(data)) is not None:
            assert error.message.endswith(f"is not UTF-8 at byte {place}")
        else:
            [number] = re.findall(r"line (\d+): not source<TAB>target$", error.message)
            assert [part.strip() for part in lines[int(number) - 1][1].decode().split("\t")].count("") or lines[int(number) - 1][1].count(
                b"\t"
            ) != 1
        return
    found = [line.decode().split("\t") for _, line in lines if line.decode().strip()]
    assert pairs == [(source.strip(), target.strip()) for source, target in found]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\tb\nc\n", "line 2: not source<TAB>target"),
        (b"a\t\xff\n", "is not UTF-8 at byte 2"),
        (b"", "there are 0 pairs"),
        (b"a\tb\n", "there are 1 pairs"),
        (b"a\tb\n" * 100, "too few pairs"),
    ],
)
def test_pairs_that_cannot_be_learned_from(worker: Worker, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "pairs.tsv").write_bytes(content)
    ended = worker.run("train", "--pairs", str(tmp_path / "pairs.tsv"), "-o", str(tmp_path / "model"), "--vocab", "300", "--steps", "1")
    assert_clear(ended, 2)
    assert words in ended.err
