"""`tgen translate`, a filter of lines: how many, in which order, when, and in which words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoint.damage import edit
from tests.cli.conftest import Ask
from tests.cli.processes import TIMEOUT, golden, running, tgen
from tests.conftest import GOLDEN, config_of
from tests.engine.oracle import search_alone
from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.generation import GenerationConfig
from tgen.engine.beam import Search, read_beams
from tgen.executors.open import open_executor
from tgen.options import GenerationOptions, RunOptions
from tgen.sampling.rules import read_rules
from tgen.text.tokenizer import Tokenizer

MARIAN = golden("marian")
COMMAND = ("translate", "-m", MARIAN, "-n", "6", "-t", "1")
LINES = ["a", "", "a line that is a good deal longer", "été", "  ", "b", "two words"]


def searched(name: str, text: str, beams: int, new: int) -> list[int]:
    """What a search by itself writes to one text, in ids."""
    tokenizer, executor = Tokenizer.load(GOLDEN / name), open_executor(open_checkpoint(GOLDEN / name), RunOptions())
    start_token, ends = config_of(name)["decoder_start_token_id"], frozenset([config_of(name)["eos_token_id"]])
    options, search = GenerationOptions(max_new_tokens=new, temperature=0), Search(read_beams(GenerationConfig(), beams), ends, new)
    rules = read_rules(GenerationConfig(), options, ends, prompt=1)
    return search_alone(executor, [start_token], search, options, rules, tokenizer.encode(text)).best(1)[0]


@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("name", ["marian", "bart", "t5"])
def test_each_line_is_what_a_search_by_itself_finds(ask: Ask, name: str, beams: int) -> None:
    """Whatever batch it was in, in the order of the input; a line of nothing but spaces is empty."""
    decode = Tokenizer.load(GOLDEN / name).decode
    expected = [decode(searched(name, line, beams, 6)).replace("\n", " ") if line.strip() else "" for line in LINES]
    assert len(set(expected)) >= 3
    said = ask("translate", "-m", golden(name), "-n", "6", "--num-beams", str(beams), stdin="\n".join(LINES).encode())
    assert said.out.split("\n") == [*expected, ""]
    assert said.err == ""


def many_languages(folder: Path, kind: str, codes: list[str]) -> Path:
    """The folder with language codes in place of the letters from p on, and with the end token `</s>`."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    renamed = {"a": "</s>", **dict(zip("pqrs", codes, strict=False))}
    vocab = values["model"]["vocab"] = {renamed.get(piece, piece): number for piece, number in values["model"]["vocab"].items()}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values["added_tokens"] += [{"id": vocab[token], "content": token, "special": True, **flags} for token in renamed.values()]
    path.write_text(json.dumps(values), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return folder


FORMS = [
    ("m2m_100", "M2M100Tokenizer", ["__en__", "__fr__", "__de__"], True),
    ("m2m_100", "NllbTokenizer", ["eng_Latn", "fra_Latn", "fra_Cyrl"], True),
    ("mbart", "MBart50Tokenizer", ["en_XX", "fr_XX", "de_DE"], True),
    ("mbart", "MBartTokenizer", ["en_XX", "fr_XX", "de_DE"], False),
]


@pytest.mark.parametrize(("name", "kind", "codes", "first"), FORMS)
def test_from_and_to_a_language(ask: Ask, copy_golden: Callable[[str], Path], name: str, kind: str, codes: list[str], first: bool) -> None:
    """The code of the source stands where the tokenizer's class puts it, and that of the target is the first token that is written."""
    folder = many_languages(copy_golden(name), kind, codes)
    tokenizer = Tokenizer.load(folder)
    english, other, third = (tokenizer.special_id(code) or 0 for code in codes)
    text = "bed fog"
    plain = tokenizer.encode(text, special=False)
    assert tokenizer.encode(text) == ([english, *plain, 2] if first else [*plain, 2, english])
    executor = open_executor(open_checkpoint(folder), RunOptions())
    options, expected = GenerationOptions(max_new_tokens=12, temperature=0, no_repeat_ngram_size=1), {}
    for source, target in ((english, other), (other, english), (other, third)):
        rules = read_rules(GenerationConfig(forced_first=target), options, frozenset([2]), prompt=1)
        ids = [source, *plain, 2] if first else [*plain, 2, source]
        search = Search(read_beams(GenerationConfig(), 3), frozenset([2]), 12)
        best = search_alone(executor, [3], search, options, rules, ids).best(1)[0]
        assert best[0] == target
        expected[source, target] = tokenizer.decode(best) + "\n"
    assert len(set(expected.values())) == 3
    command = ("translate", text, "-m", folder, "-n", "12", "--num-beams", "3", "--no-repeat-ngram-size", "1")
    assert ask(*command, "--to", codes[1]).out == expected[english, other]
    assert ask(*command, "--from", codes[1], "--to", codes[0].strip("_")).out == expected[other, english]
    assert ask(*command, "--from", codes[1], "--to", codes[2]).out == expected[other, third]
    err = ask(*command, code=2).err
    assert "translates between 3 languages, and --to is missing" in err and f"--to with a code such as {codes[1]};" in err
    assert f"--to {codes[0][:-1]}Q is none of the model's 3" in ask(*command, "--to", f"{codes[0][:-1]}Q", code=2).err
    if kind == "NllbTokenizer":
        assert ask(*command, "--to", "eng", "--from", "fra_Latn").out == expected[other, english]
        assert "--to fra is not one code but several\nhint: nearest: fra_Latn, fra_Cyrl\n" in ask(*command, "--to", "fra", code=2).err


def test_a_start_token_that_is_a_code_becomes_the_targets(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    """As in the first mBART folders, which name the code of one language as the answer's start token."""
    folder = many_languages(copy_golden("mbart"), "MBartTokenizer", ["en_XX", "ro_RO"])
    numbers = {code: Tokenizer.load(folder).special_id(code) for code in ("en_XX", "ro_RO")}

    def starting_with(code: str) -> None:
        for file in ("config.json", "generation_config.json"):
            edit(folder / file, decoder_start_token_id=numbers[code])

    command = ("translate", "bed fog", "-m", folder, "-n", "8", "--num-beams", "2")
    texts = {}
    for code in numbers:
        starting_with(code)
        texts[code] = ask(*command).out
    assert texts["en_XX"] != texts["ro_RO"]
    assert ask(*command, "--to", "en_XX").out == texts["en_XX"]
    assert "leave --from and --to out" in ask("translate", "x", "-m", MARIAN, "--to", "fr", code=2).err


def test_as_many_lines_come_out_as_go_in(ask: Ask, tmp_path: Path) -> None:
    a, b = ask(*COMMAND, stdin=b"a\nb\n").out.splitlines()
    assert ask(*COMMAND, stdin=b"a\nb").out == ask(*COMMAND, "a\nb").out == f"{a}\n{b}\n"
    assert ask(*COMMAND, stdin=b"\n\nb\r\n\n").out == f"\n\n{b}\n\n"
    assert ask(*COMMAND, stdin=b"").out == ""
    assert not sys.stdin.closed  # it is not tgen's to close
    (tmp_path / "text").write_bytes(b"b\na")
    assert ask(*COMMAND, "-f", tmp_path / "text").out == ask(*COMMAND, "-f", "-", stdin=b"b\na").out == f"{b}\n{a}\n"
    assert ask(*COMMAND, "-", stdin=b"a" + b"\na" * 299).out == f"{a}\n" * 300


def test_a_line_that_is_too_long_loses_its_end_and_is_named(ask: Ask) -> None:
    said = ask(*COMMAND, stdin=b"a\n" + b"x" * 70 + b"\n" + b"x" * 64)
    assert said.err == "warning: line 2 has 6 tokens more than the model reads; its end is left out\n"
    assert said.out.splitlines()[1] == said.out.splitlines()[2]


def test_the_folders_own_settings(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    """Beams, length and rules; beams that are asked for go before the folder's."""
    folder = copy_golden("marian")
    plain = ask("translate", "a line", "-m", folder, "-n", "4").out
    settings = {"decoder_start_token_id": 1, "eos_token_id": 2, "num_beams": 3}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert ask("translate", "a line", "-m", folder, "-n", "4", "--num-beams", "1").out == plain
    (folder / "generation_config.json").write_text(
        json.dumps({**settings, "max_length": 5, "suppress_tokens": searched("marian", "a line", 1, 4)[:1]})
    )
    other = ask("translate", "a line", "-m", folder).out
    assert other == ask("translate", "a line", "-m", folder, "-n", "4", "--num-beams", "3").out != plain
    (folder / "generation_config.json").write_text(json.dumps({**settings, "suppress_tokens": [999]}))
    assert "suppress_tokens = [999]" in ask("translate", "a", "-m", folder, code=3).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x", "-m", golden("gpt2")], ["encoder-decoder; gpt2 is decoder-only", "tgen generate"]),
        (["x", "-m", golden("bert")], ["encoder-decoder; bert is encoder-only", "tgen fill, tgen embed"]),
        (["x", "-m", MARIAN, "-f", "y"], ["as an argument or as --file, not both"]),
        (["x", "-m", MARIAN, "--num-beams", "0"], ["--num-beams must be between 1 and 256, not 0"]),
        (["\udcff", "-m", MARIAN], ["line 1 is not UTF-8 at byte 0"]),
    ],
)
def test_what_cannot_be_translated(ask: Ask, arguments: list[str], words: list[str]) -> None:
    err = ask("translate", *arguments, code=2).err
    assert [word for word in words if word not in err] == [], err


def test_a_slow_writer_gets_each_line_before_the_next_and_ctrl_c_ends_it() -> None:
    expected = tgen(*COMMAND, stdin=b"one\ntwo words\n\n").stdout.split(b"\n")
    with running(*COMMAND, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, answer in zip((b"one", b"two words", b""), expected, strict=False):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer + b"\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait(TIMEOUT) == 130


def test_a_line_that_is_not_utf8_is_named_after_the_answers_to_those_before_it() -> None:
    """And a writer that has not ended does not keep the process alive."""
    with running(*COMMAND) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n\xc3\xa9\nb\xff\n")
        process.stdin.flush()
        assert process.stdout.read().count(b"\n") == 2
        assert process.stderr.read().startswith(b"error: line 3 is not UTF-8 at byte 1\nhint: ")
        assert process.wait(TIMEOUT) == 2


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"a\n" * 5000)
    with running(*COMMAND, "-f", str(tmp_path / "text")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 0
