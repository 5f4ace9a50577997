"""The models that come along: small, in bfloat16, with a card, the same for transformers, and worth a look."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.resolve import found_models, shipped_folder
from tgen.cli.main import run
from tgen.executors.torch.load import load_model
from tgen.text.tokenizer import Tokenizer

SHIPPED = {model.name: model.folder for model in found_models() if model.origin == "shipped"}

every_model = pytest.mark.parametrize("name", SHIPPED)


def test_both_are_there() -> None:
    assert set(SHIPPED) == {"storyteller", "english-french"}
    assert shipped_folder() is not None


@every_model
def test_small_and_documented(name: str) -> None:
    folder = SHIPPED[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6
    assert {tensor.dtype for tensor in open_checkpoint(folder).stored.values()} == {"BF16"}
    card = (folder / "README.md").read_text("utf-8")
    for word in ("license:", "tgen train ", "bits per byte", "## Samples", "## Data and credits", "## Limits"):
        assert word in card


@every_model
@torch.inference_mode()
def test_transformers_gives_the_same_logits(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoint = open_checkpoint(SHIPPED[name])
    ids = torch.tensor([Tokenizer.load(SHIPPED[name]).encode("He is reading a book.")])
    ours = load_model(checkpoint, torch.device("cpu"), torch.float32)
    if checkpoint.spec.encoder is None:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(SHIPPED[name], dtype=torch.float32)(ids).logits
        found = ours.logits(ours(ids))
    else:
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(SHIPPED[name], dtype=torch.float32)
        theirs = model(input_ids=ids, decoder_input_ids=ids).logits
        found = ours.logits(ours(ids, source=ours.read_source(ids)))
    assert (found - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_no_story_turns_in_circles(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Over 300 tokens at the default settings, most sequences of four words are new. Without its rule one of these would be one word."""
    assert run(["generate", "A little girl named Rose", "-n", "300", "--samples", "8", "--seed", "500", "--json"]) == 0
    stories = [choice["text"].split() for choice in json.loads(capfdbinary.readouterr().out)["choices"]]
    assert sum(map(len, stories)) > 8 * 80, "some stories may be short, but there is enough to judge"
    for words in stories:
        fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
        assert len(fours) > 0.8 * fours.total()


def test_a_translation(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["translate", "He is reading a book."]) == 0
    assert capfdbinary.readouterr().out.decode() in ("Il lit un livre.\n", "Il est en train de lire un livre.\n")


def test_as_many_lines_out_as_in(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\n\nb\n", "utf-8")
    assert run(["translate", "--file", str(tmp_path / "lines")]) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == 3
