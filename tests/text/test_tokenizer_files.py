"""Every kind of tokenizer file gives the ids of its reference, for texts that are awkward."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.damage import edit
from tests.conftest import GOLDEN, tokenizer_cases, tokenizer_folder
from tgen.errors import CheckpointError, UsageError
from tgen.text.tokenizer import Tokenizer

KINDS = sorted(folder.name for folder in (GOLDEN / "tokenizers").iterdir())


def test_every_kind_is_tried() -> None:
    assert {"gpt2", "opt", "qwen2", "bert", "bert_cased", "byt5", "llama", "t5", "tekken"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_those_of_the_reference(kind: str) -> None:
    tokenizer, cases = Tokenizer.load(tokenizer_folder(kind)), tokenizer_cases(kind)
    assert len(cases) >= 16
    wrong = [case["text"] for case in cases if tokenizer.encode(case["text"]) != case["ids"]]
    assert not wrong


@pytest.mark.parametrize(
    "text", ["Hello, world's end.", "a\nb\n\nc.\nd'\ne", "wait...what?! (no)", "__start__ the __end__ cat", "Il était\n"]
)
def test_words_and_lines_of_the_small_blenderbot(text: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tokenizer_folder("blenderbot_small")
    tokenizer, reference = Tokenizer.load(folder), transformers.BlenderbotSmallTokenizer.from_pretrained(folder)
    assert tokenizer.encode(text) == reference(text)["input_ids"]


def test_a_piece_that_the_small_blenderbot_lacks(tmp_path: Path) -> None:
    """Also in a folder whose config.json alone says what it is."""
    shutil.copytree(tokenizer_folder("blenderbot_small"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "blenderbot-small"}')
    vocabulary = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    inner, last = vocabulary.pop("th@@"), vocabulary.pop("the")
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Tokenizer.load(tmp_path, vocab=len(vocabulary) + 2)
    assert tokenizer.encode("at") == [vocabulary["at"]]
    assert {inner, last}.isdisjoint(vocabulary.values())
    with pytest.raises(UsageError, match="the text holds 'the</w>'"):
        tokenizer.encode("the")
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(CheckpointError, match=r"vocab.json is damaged: vocab.json lacks __unk__"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "text", "same_as"),
    [
        ({"add_prefix_space": True}, "Once upon", " Once upon"),
        ({"add_prefix_space": False}, "Once upon", "Once upon"),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "a"}, "Once", "aOnce"),
        ({"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "add_bos_token": False, "eos_token": "a"}, "Once ", "Once a"),
    ],
)
def test_tokenizer_config_goes_before_tokenizer_json(config: dict[str, Any], text: str, same_as: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "gpt2" / "tokenizer.json", tmp_path)
    cutter = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    edit(tmp_path / "tokenizer.json", pre_tokenizer=cutter)
    plain = Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode(text), special=True) == plain.decode(plain.encode(same_as), special=True)


def test_a_token_that_only_the_config_calls_special_is_left_out_of_the_text(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "gpt2" / "tokenizer.json", tmp_path)
    assert Tokenizer.load(tmp_path).decode([*Tokenizer.load(tmp_path).encode("b"), Tokenizer.load(tmp_path).id_of("a") or 0]) == "ba"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "a"}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode([*tokenizer.encode("b"), tokenizer.id_of("a") or 0]) == "b"


def test_a_token_that_only_the_config_adds_is_one_token(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "gpt2" / "tokenizer.json", tmp_path)
    size = Tokenizer.load(tmp_path).size()
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": {str(size): {"content": "<|im_end|>", "special": True}}})
    )
    assert Tokenizer.load(tmp_path).encode("<|im_end|>", special=False) == [size]
