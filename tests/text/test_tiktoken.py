"""Folders of Kimi's kin, whose tiktoken.model holds byte strings by rank: the ids of its definition."""

from __future__ import annotations

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers

from tests.conftest import tokenizer_cases
from tests.text.learnt import SENTENCES
from tgen.errors import CheckpointError
from tgen.text.files.cutting import KIMI
from tgen.text.token_bytes import read_token_bytes
from tgen.text.tokenizer import Tokenizer
from tgen.train.vocabulary import learn_tokenizer

SPECIAL = {"[BOS]": 0, "[EOS]": 1, "<|im_end|>": 5}  # behind the byte strings; the ids between are reserved


def written(folder: Path) -> dict[bytes, int]:
    """Write a folder's files; returns its byte strings by rank."""
    vocabulary = learn_tokenizer([*SENTENCES, "日本語と中文"] * 3, 360).get_vocab(False)
    spelled = read_token_bytes({"type": "ByteLevel"})
    assert spelled is not None
    found = [bytes([one]) for one in range(256)]
    found += [one for piece in sorted(vocabulary, key=lambda piece: vocabulary[piece]) if len(one := spelled.spell(piece)) > 1]
    lines = [f"{base64.b64encode(one).decode()} {rank}\n" for rank, one in enumerate(found)]
    (folder / "tiktoken.model").write_text("".join(lines))
    added = {str(len(found) + number): {"content": name, "special": True} for name, number in SPECIAL.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added, "tokenizer_class": "TikTokenTokenizer"}))
    return {one: rank for rank, one in enumerate(found)}


def joined(parts: list[bytes], ranks: dict[bytes, int]) -> list[bytes]:
    """Join the pair with the lowest rank until there is none."""
    while pairs := [(ranks[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
        place = min(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def test_ids_are_those_of_the_definition(tmp_path: Path) -> None:
    ranks, cutter = written(tmp_path), pre_tokenizers.Split(Regex(KIMI), "isolated")
    tokenizer = Tokenizer.load(tmp_path)
    for text in [*(case["text"] for case in tokenizer_cases("byt5")), "日本語abc", "It's 1234567"]:
        expected = []
        for part in re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text):
            if part in SPECIAL:
                expected.append(len(ranks) + SPECIAL[part])
                continue
            for piece in [one.encode() for one, _ in cutter.pre_tokenize_str(part)]:
                expected += [ranks[one] for one in ([piece] if piece in ranks else joined([bytes([one]) for one in piece], ranks))]
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected, special=True) == text
    assert tokenizer.encode(f"<|reserved_token_{len(ranks) + 3}|>") == [len(ranks) + 3]
    assert [one for one, _ in cutter.pre_tokenize_str("日本abc")] == ["日本", "abc"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("IQ== 0 1\n", "a line that is not a byte string"), ("IQ== 1\n", "ranks do not count from 0"), ("!! 0\n", "damaged")],
)
def test_a_damaged_file_is_named(content: str, words: str, tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "tiktoken.model").write_text(content)
    with pytest.raises(CheckpointError, match=rf"tiktoken\.model is damaged.*{words}|{words}"):
        Tokenizer.load(tmp_path)
