"""The vocabulary of a GGUF file gives the ids of the tokenizer that it was made from, for texts that are awkward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest

from tests.conftest import tokenizer_cases, tokenizer_folder
from tgen.errors import UnsupportedError
from tgen.text.chat import find_template
from tgen.text.files.pieces import read_pieces
from tgen.text.tokenizer import Tokenizer

# The file of pieces, what llama.cpp calls such a tokenizer, and how it cuts texts.
KINDS = {
    "llama": ("tokenizer.model", "llama", "default"),
    "gemma": ("tokenizer.model", "llama", "default"),
    "t5": ("spiece.model", "t5", "default"),
    "gpt2": ("vocab.json", "gpt2", "gpt-2"),
    "qwen2": ("vocab.json", "gpt2", "qwen2"),
    "tekken": ("tekken.json", "gpt2", "tekken"),
    "bert": ("vocab.txt", "bert", "default"),
    "bert_cased": ("vocab.txt", "bert", "default"),
}
PHANTOM = "▁"


def write_vocabulary(
    name: str, path: Path, template: str | None = None, *, cut: str | None = None, merged: bool = True, more: Sequence[str] = ()
) -> None:
    """A file with the vocabulary of a folder, in the form that llama.cpp's converter gives it, and one token that no text has."""
    folder, (file, model, usual) = tokenizer_folder(name), KINDS[name]
    library: Any = Tokenizer.load(folder).library
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    added = library.get_added_tokens_decoder()
    count = library.get_vocab_size()
    tokens = [library.id_to_token(number) for number in range(count)]
    kinds = [3 if number in added and added[number].special else 4 if number in added else 1 for number in range(count)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(cut or usual)
    if file.endswith(".model"):
        pieces = read_pieces(folder / file)
        kinds = [pieces.pieces[number][2] if number < len(pieces.pieces) else kind for number, kind in enumerate(kinds)]
        writer.add_token_scores([pieces.pieces[number][1] if number < len(pieces.pieces) else -1000.0 for number in range(count + 1)])
        writer.add_add_space_prefix(config.get("add_prefix_space", pieces.dummy_prefix))
        writer.add_remove_extra_whitespaces(pieces.one_space)
        writer.add_uint32("tokenizer.ggml.unknown_token_id", pieces.unknown)
        if pieces.characters:
            writer.add_precompiled_charsmap(list(pieces.characters))  # type: ignore[arg-type]
    if model == "bert":
        tokens = [one if kind == 3 else one[2:] if one.startswith("##") else PHANTOM + one for one, kind in zip(tokens, kinds, strict=True)]
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", config.get("do_lower_case", True))
    elif model == "gpt2":
        merges = json.loads(library.to_str())["model"]["merges"]
        writer.add_token_merges([*more, *(" ".join(merge) for merge in merges if merged)])
    writer.add_token_list([*tokens, f"[PAD{count}]"])
    writer.add_token_types([*kinds, 5])
    for token in ("bos", "eos"):
        text = config.get(f"{token}_token", {"bos": "<s>", "eos": "</s>"}[token])
        if (number := library.token_to_id(text if isinstance(text, str) else text["content"])) is not None:
            writer.add_uint32(f"tokenizer.ggml.{token}_token_id", number)
        if (flag := config.get(f"add_{token}_token")) is not None:
            writer.add_bool(f"tokenizer.ggml.add_{token}_token", flag)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize("name", KINDS)
def test_the_ids_are_those_of_the_folder(name: str, tmp_path: Path) -> None:
    write_vocabulary(name, tmp_path / "model.gguf")
    tokenizer, folder = Tokenizer.load(tmp_path / "model.gguf"), Tokenizer.load(tokenizer_folder(name))
    cases = tokenizer_cases(name)
    assert not [case["text"] for case in cases if tokenizer.encode(case["text"]) != case["ids"]]
    assert not [case["text"] for case in cases if tokenizer.decode(case["ids"]) != folder.decode(case["ids"])]


def test_the_template_comes_from_the_metadata(tmp_path: Path) -> None:
    write_vocabulary("llama", tmp_path / "model.gguf", "{{ bos_token }}{{ messages[0].content }}")
    found = find_template(tmp_path / "model.gguf")
    assert found is not None and found.source == "{{ bos_token }}{{ messages[0].content }}" and found.tokens["bos_token"] == "<s>"
    write_vocabulary("llama", tmp_path / "other.gguf")
    assert find_template(tmp_path / "other.gguf") is None


def test_a_pair_that_makes_no_token_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_vocabulary("gpt2", tmp_path / "model.gguf", more=["a <|endoftext|>", "z q"])
    tokenizer = Tokenizer.load(tmp_path / "model.gguf")
    assert all(tokenizer.encode(case["text"]) == case["ids"] for case in tokenizer_cases("gpt2"))
    assert capfd.readouterr().err == ""


def test_a_token_that_fills_up_the_embeddings_is_no_entry(tmp_path: Path) -> None:
    write_vocabulary("gpt2", tmp_path / "model.gguf")
    assert Tokenizer.load(tmp_path / "model.gguf").size() == Tokenizer.load(tokenizer_folder("gpt2")).size()


def test_llama_3_takes_a_word_of_its_vocabulary_whole(tmp_path: Path) -> None:
    """Whatever the merges say; GPT-2 needs them."""
    vocabulary = json.loads((tokenizer_folder("gpt2") / "vocab.json").read_text("utf-8"))
    word = next(word for word in vocabulary if len(word) > 2 and word.isascii() and word.isalpha())
    for cut, ids in (("llama-bpe", [vocabulary[word]]), ("gpt-2", [vocabulary[letter] for letter in word])):
        path = tmp_path / f"{cut}.gguf"
        write_vocabulary("gpt2", path, cut=cut, merged=False)
        assert Tokenizer.load(path).encode(word, special=False) == ids


def test_a_cut_that_is_not_known_is_named(tmp_path: Path) -> None:
    write_vocabulary("gpt2", tmp_path / "model.gguf", cut="of-tomorrow")
    with pytest.raises(UnsupportedError, match=r"tokenizer\.ggml\.pre = 'of-tomorrow' is not implemented"):
        Tokenizer.load(tmp_path / "model.gguf")
