"""`tgen train` as a process: a folder that generates, kills that damage nothing, and bad input that is named."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests.cli.conftest import Ask
from tests.cli.processes import TIMEOUT, environment, golden, tgen
from tgen.cli import main
from tgen.train import trainer
from tgen.train.workspace import Workspace

WORDS = "the a fox king wolf tower river said went saw and but old red small".split()
TINY = "--width 64 --layers 1 --context 32 --batch 4 --vocab 300 --validation 0.1 --no-compile -t 1".split()
STEPS, EVERY = 24, 4
# The number format is chosen by measuring, and a busy machine may choose differently in each process.
EXACT = "import tgen.train.trainer as trainer; trainer.bfloat16_is_faster = lambda _: False; from tgen.cli.main import main; main()"


def train(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", EXACT, "train", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[bytes], code: int = 0) -> str:
    shown, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code, shown.decode()
    return shown.decode()


@pytest.fixture
def learn(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The same in the test's own process, for runs that nothing interrupts: importing torch takes longer than a few steps."""
    monkeypatch.setattr(trainer, "bfloat16_is_faster", lambda _: False)
    return lambda *arguments: ask("train", *arguments).err


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred sentences in JSON lines."""
    choose = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "tales.jsonl"
    lines = (" ".join(choose.choices(WORDS, k=30)).capitalize() + "." for _ in range(200))
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    shown = finish(train(str(text), "-o", str(folder), "--steps", str(STEPS), "--every", str(EVERY), *TINY))
    assert f"step {STEPS}, {STEPS * 4 * 32:,} tokens: loss" in shown
    done = next(line for line in shown.splitlines() if line.startswith("done: "))
    assert done.startswith(f"done: tgen generate --model {folder} ")
    # The prompt of the samples, which is also in the card, is the beginning of a text that was held back.
    *_, prompt = shlex.split(done)
    assert prompt
    assert any(json.loads(line)["text"].startswith(prompt) for line in text.read_text().splitlines())
    assert shown.count(f"\n  {prompt}") == STEPS // EVERY
    assert f"```\ntgen generate --model model {shlex.quote(prompt)}\n```" in (folder / "README.md").read_text()
    return folder


def test_the_folder_is_whole_and_generates(whole: Path) -> None:
    expected = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in whole.iterdir()} == expected | {"loss.csv", "loss.svg", "training"}
    assert not list(whole.rglob("*.partial"))
    history = (whole / "loss.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in history[1:]] == list(range(EVERY, STEPS + 1, EVERY))
    assert tgen("generate", "The", "-m", str(whole), "-n", "5", "--seed", "1").stdout
    assert main.run(["info", str(whole)]) == 0


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(text: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    choose = random.Random(os.getpid())
    arguments = [str(text), "--steps", str(STEPS), "--every", str(EVERY), *TINY]
    for _ in range(3):
        process = train(*arguments, "-o", str(folder))
        assert process.stdout is not None
        for _ in range(choose.randint(1, 4)):  # some lines later: a few steps, or in the middle of writing
            process.stdout.readline()
        time.sleep(choose.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        assert_nothing_damaged(folder)
        if (folder / "training" / "settings.json").exists():  # else it was killed before there was anything to resume, and starts anew
            arguments = ["--resume", "--every", str(EVERY), "--no-compile", "-t", "1"]
    assert f"step {STEPS}," in finish(train(*arguments, "-o", str(folder)))
    assert_nothing_damaged(folder)
    assert not list(folder.rglob("*.partial"))
    expected, found = (torch.load(run / "training" / "state.pt", weights_only=True)["model"] for run in (whole, folder))
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)
    assert (whole / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_two_runs_do_not_train_in_one_folder_at_once(ask: Ask, whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    with Workspace(folder).held():
        said = ask("train", "--resume", "-o", folder, "--steps", str(STEPS + EVERY), "--no-compile", "-t", "1", code=2)
    assert f"another run is writing to {folder}" in said.err
    assert (folder / "training" / "settings.json").read_bytes() == (whole / "training" / "settings.json").read_bytes()


def test_a_run_goes_on_for_longer_than_it_was_started_for(learn: Callable[..., str], whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    shown = learn("--resume", "-o", str(folder), "--steps", str(STEPS + EVERY), "--no-compile", "-t", "1")
    assert f"step {STEPS + EVERY}," in shown
    assert [int(line.split(",")[0]) for line in (folder / "loss.csv").read_text().splitlines()[1:]][-2:] == [STEPS, STEPS + EVERY]
    assert_nothing_damaged(folder)


def test_a_run_goes_on_from_a_model_with_other_text(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    folder, held = tmp_path / "model", tmp_path / "held.txt"
    held.write_text("the red fox said the king went and saw the old river. " * 20)
    options = ["--steps", "6", "--every", "3", "--batch", "4", "--no-compile", "-t", "1", "--learning-rate", "0.0000001"]
    shown = learn(str(text), "--base", str(whole), "--held-back", str(held), "-o", str(folder), *options)
    assert "learning 300 tokens" not in shown
    assert (folder / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()
    before, after = (load_file(run / "model.safetensors") for run in (whole, folder))
    assert max(float((before[name].float() - after[name].float()).abs().max()) for name in before) < 1e-3
    stored = json.loads((folder / "training" / "settings.json").read_text())["settings"]
    assert (stored["width"], stored["layers"], stored["context"]) == (64, 1, 32)
    ids = np.load(folder / "training" / "validation.npy")
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).decode(ids[:-1].tolist()) == held.read_text()
    characters = sum(len(json.loads(line)["text"]) for line in text.read_text().splitlines())
    counted = f"200 documents, {characters:,} characters; measured on {len(held.read_text()):,} characters that were held back"
    assert counted in (folder / "README.md").read_text()
    assert len(np.load(folder / "training" / "train.npy")) > len(np.load(whole / "training" / "train.npy"))  # nothing is held back from it


def test_a_base_is_given_layers_that_change_nothing_at_first(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    options = ["--steps", "2", "--batch", "4", "--validation", "0.1", "--no-compile", "-t", "1", "--learning-rate", "0.0003"]
    learn(str(text), "--base", str(whole), "--layers", "3", "-o", str(folder), *options)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(whole / name, folder / "training" / "base" / name)
    scores = [tgen("score", "-m", str(model), "The old fox said.").stdout for model in (whole, folder / "training" / "base")]
    assert scores[0] == scores[1]
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 3
    before, after = (load_file(path / "model.safetensors") for path in (whole, folder))
    assert len(after) > len(before)
    for added in ("self_attn.o_proj", "mlp.down_proj"):  # they learn, though they began as nothing
        assert float(after[f"model.layers.2.{added}.weight"].abs().max()) > 0


def test_what_is_written_can_be_an_average_with_the_base(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    options = ["--base", str(whole), "--base-share", "0.25", "--batch", "4", "--validation", "0.1", "--no-compile", "-t", "1"]
    learn(str(text), *options, "-o", str(folder), "--steps", "2", "--learning-rate", "0.01")
    before, written = (load_file(model / "model.safetensors")["model.norm.weight"].float() for model in (whole, folder))
    learned = torch.load(folder / "training" / "state.pt", weights_only=True)["model"]["decoder.final_norm.weight"]
    assert float((before - learned).abs().max()) > 0.005
    assert torch.allclose(written, 0.25 * before + 0.75 * learned, atol=0.004)
    assert not torch.allclose(written, learned, atol=0.002)


def test_a_model_that_learned_beginnings_gets_a_prompt_as_one(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    base, folder = shutil.copytree(whole, tmp_path / "base", ignore=shutil.ignore_patterns("training")), tmp_path / "model"
    plain = json.loads((base / "tokenizer.json").read_text())
    (base / "tokenizer.json").write_text(json.dumps({**plain, "post_processor": None}))
    options = ["--beginnings", "0.5", "--steps", "1", "--batch", "4", "--validation", "0.1", "--no-compile", "-t", "1"]
    learn(str(text), "--base", str(base), *options, "-o", str(folder))
    first, second = (Tokenizer.from_file(str(model / "tokenizer.json")).encode("old fox").ids for model in (base, folder))
    assert second == [0, *first]


def test_shorter_sequences_leave_the_context_as_it_is(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    options = ["--sequence", "8", "--steps", "3", "--batch", "4", "--validation", "0.1", "--no-compile", "-t", "1"]
    learn(str(text), "--base", str(whole), *options, "-o", str(folder))
    assert json.loads((folder / "config.json").read_text())["max_position_embeddings"] == 32
    assert [int(line.split(",")[1]) for line in (folder / "loss.csv").read_text().splitlines()[1:]][-1] == 3 * 4 * 8  # tokens


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sequence", "16"], "--sequence is for a run with --base"),
        (["--base", "storyteller", "--sequence", "1025"], "--sequence 1025 is longer than the context of --base storyteller, 1024 tokens"),
        (["--base", "storyteller", "--sequence", "0"], "--sequence must be above 0, not 0"),
        (["--base", "storyteller", "--layers", "2"], "--layers 2 is less than the"),
        (["--base-share", "0.5"], "--base-share is for a run with --base"),
        (["--beginnings", "1.5"], "--beginnings must be 0 to 1, not 1.5"),
        (["--base", golden("llama2")], "--base llama2 was not made by `tgen train` from texts"),
        (["--base", golden("gpt2")], "--base gpt2 was not made by `tgen train` from texts"),
        (["--base", "english-french"], "was not made by `tgen train` from texts"),
        (["--base", "storyteller", "--width", "256"], "--width and --base exclude each other"),
        (["--validation", "0.1", "--held-back", "missing.txt"], "--validation and --held-back exclude each other"),
        (["--held-back", "missing.txt"], "no such file: missing.txt"),
    ],
)
def test_a_base_that_does_not_fit_is_named(
    capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    assert main.run(["train", str(text), "-o", str(tmp_path / "out"), "--steps", "1", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_base_without_a_tokenizer_is_damaged(capsys: pytest.CaptureFixture[str], text: Path, whole: Path, tmp_path: Path) -> None:
    base = shutil.copytree(whole, tmp_path / "base", ignore=shutil.ignore_patterns("training"))
    for damage in ("{", None):
        if damage is None:
            (base / "tokenizer.json").unlink()
        else:
            (base / "tokenizer.json").write_text(damage)
        assert main.run(["train", str(text), "-o", str(tmp_path / "out"), "--steps", "1", "--base", str(base)]) == 3
        assert "tokenizer.json cannot be read" in capsys.readouterr().err


def test_a_run_needs_its_base_only_once(learn: Callable[..., str], text: Path, whole: Path, tmp_path: Path) -> None:
    base = shutil.copytree(whole, tmp_path / "base", ignore=shutil.ignore_patterns("training"))
    options = ["--batch", "4", "--validation", "0.1", "--no-compile", "-t", "1"]
    learn(str(text), "--base", str(base), "-o", str(tmp_path / "out"), "--steps", "2", *options)
    shutil.rmtree(base)
    shown = learn("--resume", "-o", str(tmp_path / "out"), "--steps", "4", "--no-compile", "-t", "1")
    assert "step 4," in shown


@pytest.mark.parametrize(("option", "value"), [("--base", "storyteller"), ("--beginnings", "0.5")])
def test_options_for_texts_go_with_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str) -> None:
    assert main.run(["train", "--resume", "-o", str(tmp_path), option, value]) == 2
    assert f"{option} is for a run that starts from texts" in capsys.readouterr().err


def assert_nothing_damaged(folder: Path) -> None:
    """Every file that exists under its own name is whole."""
    for path in folder.rglob("*"):
        match path.suffix:
            case ".json":
                json.loads(path.read_text("utf-8"))
            case ".npy":
                np.load(path)
            case ".pt":
                torch.load(path, weights_only=True)
            case ".safetensors":
                load_file(path)


def test_an_interrupted_run_keeps_its_last_step(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    process = train(str(text), "-o", str(folder), "--steps", "100000", "--every", "2", *TINY)
    assert process.stdout is not None
    assert any(b"step 2," in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    assert f"stopped; go on with: tgen train --resume --output {folder}" in finish(process, code=130)
    assert_nothing_damaged(folder)
    assert main.run(["info", str(folder)]) == 0


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt", b"ab\xff", "t.txt is not UTF-8 at byte 2"),
        ("t.txt", b" \n", "there is no text to learn from"),
        ("t.txt", b"Once.", "too few for sequences of 32"),
        ("t.jsonl", b'{"text": "a"}\n\n{"txt": "b"}\n', "t.jsonl, line 3: not a JSON object with a text field"),
        ("t.jsonl", b'{"text": "a"}\n{"text": 1}\n', "t.jsonl, line 2: the text field is not a string"),
        ("t.jsonl", b'{"text": "a"\n', "t.jsonl, line 1: not a JSON object"),
        ("missing.txt", None, "no such file: "),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert main.run(["train", str(tmp_path / name), "-o", str(tmp_path / "out"), "--steps", "1", *TINY]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_sample_never_ends_a_run(ask: Ask, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("从前有一个国王,他有三个儿子。国王老了,想把王国交给最聪明的儿子。\n" * 100, "utf-8")
    options = ["--every", "1", "--no-compile", "-t", "1"]
    shape = ["--width", "64", "--layers", "1", "--batch", "4", "--vocab", "300"]
    for context in (16, 8, 1):
        said = ask("train", text, "-o", f"{out}{context}", "--context", str(context), "--steps", "2", *shape, *options)
        assert said.err.count("bits per byte held back\n  从") == (2 if context > 1 else 0)
        assert f"done: tgen generate --model {out}{context} '从" in said.err
        said = ask("train", "--resume", "-o", f"{out}{context}", "--steps", "4", "--prompt", "很长的一句话" * 20, *options)
        assert said.err.count("bits per byte held back\n  很") == (2 if context > 1 else 0)
        assert "step 4," in said.err


def test_the_sample_of_a_translator_is_a_source_and_its_answer(ask: Ask, tmp_path: Path) -> None:
    pairs, out = tmp_path / "pairs.tsv", tmp_path / "out"
    pairs.write_bytes(b"\xef\xbb\xbf" + "".join(f"the number {i}\tle nombre {i}\r\n" for i in range(100)).encode())
    said = ask("train", "--pairs", pairs, "-o", out, *TINY, "--steps", "2")
    assert re.search(r"held back\n  the number \d+ -> ", said.err)
    assert re.search(rf"done: tgen translate --model {out} 'the number \d+'", said.err)
    assert "\ufeff" not in (out / "tokenizer.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["."], "error: . is a folder, not a file\nhint: give text files, .jsonl files, or - for standard input\n"),
        (["--pairs", "."], "error: . is a folder, not a file\nhint: --pairs takes a file of source<TAB>target lines\n"),
        ([""], "error: FILE must not be empty\n"),
        (["--pairs", ""], "error: --pairs must not be empty\n"),
        (["text.txt", "--held-back", ""], "error: --held-back must not be empty\n"),
        (["text.txt", "--prompt", ""], "error: --prompt must not be empty\n"),
        (["text.txt", "-o", ""], "error: --output must not be empty\n"),
        (["text.txt", "--output", ""], "error: --output must not be empty\n"),
        (["text.txt", "--resume"], "error: give exactly one of text files, --pairs and --resume\n"),
        (["text.txt", "--steps", "1", "--minutes", "1"], "error: training needs --steps or --minutes, and not both\n"),
    ],
)
def test_what_starts_no_run_leaves_nothing(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    said = ask("train", *arguments, *([] if "--minutes" in arguments else ["--steps", "1"]), code=2)
    assert message in said.err
    assert "\nhint: " in said.err
    assert not list(Path().iterdir())


def test_a_folder_is_not_overwritten_and_nothing_is_not_resumed(capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    assert main.run(["train", str(text), "-o", str(tmp_path), "--steps", "1", *TINY]) == 2
    assert f"error: {tmp_path} is not empty\nhint: choose another folder, or --resume" in capsys.readouterr().err
    assert main.run(["train", "--resume", "-o", str(tmp_path)]) == 2
    assert "holds no training run to resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
