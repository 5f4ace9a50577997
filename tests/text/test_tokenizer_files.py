"""Every kind of tokenizer file gives the ids of its reference, for texts that are awkward."""

from __future__ import annotations

import json

import pytest

from tests.conftest import GOLDEN
from tgen.text.tokenizer import Tokenizer

KINDS = sorted(folder.name for folder in (GOLDEN / "tokenizers").iterdir())


def test_every_kind_is_tried() -> None:
    assert {"gpt2", "opt", "qwen2", "bert", "bert_cased", "byt5", "llama", "t5", "tekken"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_those_of_the_reference(kind: str) -> None:
    folder = GOLDEN / "tokenizers" / kind
    tokenizer = Tokenizer.load(folder)
    cases = json.loads((folder / "expected.json").read_text("utf-8"))
    assert len(cases) >= 16
    wrong = [case["text"] for case in cases if tokenizer.encode(case["text"]) != case["ids"]]
    assert not wrong
