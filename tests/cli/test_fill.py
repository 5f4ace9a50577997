"""`tgen fill` against a direct computation on the goldens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, golden_model
from tgen.sampling.logits import NumericalError
from tgen.tasks.filling import fillings
from tgen.text.tokenizer import Tokenizer

OWN = {"bert": "[MASK]", "roberta": "<mask>"}


@pytest.mark.parametrize("mask", OWN.values())
@pytest.mark.parametrize("name", OWN)
def test_candidates_equal_a_direct_computation(ask: Ask, name: str, mask: str) -> None:
    tokenizer, model = Tokenizer.load(GOLDEN / name), golden_model(name)
    ids = tokenizer.encode(f"The {OWN[name]} sat on a {OWN[name]}.")
    with torch.inference_mode():
        chances = model.logits(model.encode(torch.tensor([ids]))[0]).double().softmax(-1)
    said = ask("fill", f"The {mask} sat on a {mask}.", "-m", golden(name), "--json", "--top", "7", "--dtype", "float32").json
    assert said["model"] == name
    places = [place for place, token in enumerate(ids) if token == tokenizer.id_of(OWN[name])]
    assert len(said["masks"]) == len(places) == 2
    for place, found in zip(places, said["masks"], strict=True):
        expected = chances[place].topk(7)
        assert [one["id"] for one in found] == expected.indices.tolist()
        assert [one["probability"] for one in found] == pytest.approx(expected.values.tolist(), rel=1e-4)


def test_a_person_reads_lines_with_an_empty_one_between_masks(ask: Ask) -> None:
    arguments = ("fill", "-m", golden("bert"), "--top", "3")
    said = ask(*arguments, "--json", stdin=b"a [MASK] b <mask>").json
    blocks = [[f"{one['probability']:.4f}\t{one['token']}" for one in mask] for mask in said["masks"]]
    assert ask(*arguments, stdin=b"a [MASK] b <mask>").out == "\n".join("".join(f"{line}\n" for line in block) for block in blocks)
    everything = ask("fill", "[MASK]", "-m", golden("bert"), "--top", "999", "--json").json["masks"][0]
    assert sum(one["probability"] for one in everything) == pytest.approx(1)
    assert all(one["token"] for one in everything)  # white space is spelled as in the vocabulary


def test_white_space_is_spelled() -> None:
    tokenizer = Tokenizer.load(GOLDEN / "bert")
    (space,) = tokenizer.encode(" ")
    logits = np.zeros(288, dtype=np.float32)
    logits[space] = 9
    assert fillings(tokenizer, logits, 1)[0].text == "Ġ"
    with pytest.raises(NumericalError, match="at a mask"):
        fillings(tokenizer, logits + np.inf, 1)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["no mask", "-m", golden("roberta")], ["no mask in the text", "write <mask>"], 2),
        (["[MASK]", "-m", golden("bert_headless")], ["no head", "tgen embed"], 2),
        (["[MASK]", "-m", golden("gpt2")], ["encoder-only; gpt2 is decoder-only", "tgen generate, tgen score"], 2),
        (["[MASK]", "-m", golden("t5")], ["encoder-only; t5 is encoder-decoder", "tgen translate"], 2),
        (["[MASK]", "-m", golden("bert"), "--top", "0"], ["--top must be 1 or more, not 0"], 2),
        (["[MASK]" + "x" * 64, "-m", golden("bert")], ["65 tokens, the model's context is 64", "shorten it"], 5),
    ],
)
def test_what_cannot_be_filled(ask: Ask, arguments: list[str], words: list[str], code: int) -> None:
    err = ask("fill", *arguments, code=code).err
    assert [word for word in words if word not in err] == [], err


def test_a_tokenizer_without_a_mask(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("bert")
    shutil.copy(GOLDEN / "gpt2" / "tokenizer.json", folder)
    assert "no mask token" in ask("fill", "[MASK]", "-m", folder, code=2).err
