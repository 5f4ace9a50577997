"""An OPUS-MT folder as the hub has it, with two SentencePiece models, a vocab.json and a `.bin`: the ids and texts of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Ask
from tests.families.official_more import MORE
from tests.text.learnt import CODE, SENTENCES, learn_folders
from tgen.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

LINES = [*SENTENCES, "The <unk> cat </s> walks", "  two  spaces ", "été 🎉 日本", f"{CODE} The cat sat.", "a\tb", "<pad>", "12,345 cats"]
SMALL = {
    **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_hidden_layers"), 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Helsinki-NLP/opus-mt-en-fr, small, with random weights that write something else for each text."""
    place = learn_folders(tmp_path_factory.mktemp("opus"))["marian"]
    size = len(json.loads((place / "vocab.json").read_text("utf-8")))
    padding = size - 1
    ids = {
        "vocab_size": size,
        "decoder_vocab_size": size,
        "pad_token_id": padding,
        "decoder_start_token_id": padding,
        "bad_words_ids": [[padding]],
    }
    values = {**MORE["Helsinki-NLP/opus-mt-en-fr"].values, **SMALL, **ids}
    (place / "config.json").write_text(json.dumps(values))
    generation: dict[str, Any] = {key: values[key] for key in ("bad_words_ids", "bos_token_id", "decoder_start_token_id", "eos_token_id")}
    generation |= {key: values[key] for key in ("forced_eos_token_id", "num_beams", "pad_token_id")}
    (place / "generation_config.json").write_text(json.dumps({**generation, "max_length": 40, "renormalize_logits": True}))
    model = transformers.MarianMTModel(transformers.MarianConfig.from_pretrained(place))
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in [*model.named_parameters(), ("final_logits_bias", model.final_logits_bias)]:
            if "embed_positions" not in name:
                middle = 1.0 if "norm.weight" in name else 0.0
                parameter.copy_(middle + 0.3 * torch.randn(parameter.shape, generator=random))
    tensors = dict(model.state_dict())
    for stack in ("encoder", "decoder"):
        tensors[f"model.{stack}.embed_tokens.weight"] = tensors["model.shared.weight"]
    tensors["lm_head.weight"] = tensors["model.shared.weight"]
    torch.save(tensors, place / "pytorch_model.bin")
    return place


@pytest.fixture(scope="module")
def answers(folder: Path) -> list[list[int]]:
    """What transformers writes to each line with four beams. Each token once: such models would else write one again and again."""
    model = transformers.MarianMTModel.from_pretrained(folder).eval()
    options = {"num_beams": 4, "do_sample": False, "no_repeat_ngram_size": 1}
    sources = [torch.tensor([Tokenizer.load(folder).encode(line)]) for line in LINES]
    return [model.generate(source, **options)[0].tolist() for source in sources]


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_the_ids_of_texts_are_those_of_transformers(folder: Path) -> None:
    tokenizer, reference = Tokenizer.load(folder), transformers.MarianTokenizer.from_pretrained(folder)
    assert [tokenizer.encode(line) for line in LINES] == [reference(line)["input_ids"] for line in LINES]


def test_the_translations_are_those_of_transformers(folder: Path, answers: list[list[int]], ask: Ask) -> None:
    assert len(set(map(tuple, answers))) > 5
    said = ask("translate", "-m", folder, "--no-repeat-ngram-size", "1", stdin="\n".join(LINES).encode())
    assert said.err == ""
    assert said.out.splitlines() == [Tokenizer.load(folder).decode(ids) for ids in answers]
