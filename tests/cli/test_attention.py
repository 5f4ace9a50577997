"""`tgen attention`: which map, in which form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, golden_model
from tgen.executors.torch.maps import attention_maps
from tgen.text.tokenizer import Tokenizer

TEXT = 'Once <upon> & "a" time'


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt2", "decoder"), ("bert", "encoder"), ("marian", "cross"), ("marian", "encoder"), ("marian", "decoder"), ("t5", "cross")],
)
def test_json_holds_the_recorded_maps(ask: Ask, name: str, kind: str) -> None:
    tokenizer, spec = Tokenizer.load(GOLDEN / name), golden_model(name).spec
    ids, answer = tokenizer.encode(TEXT), tokenizer.encode("an answer")
    options = ["--answer", "an answer"] if spec.kind == "encoder-decoder" else []
    if options:
        answer = [{"marian": 1, "t5": 3}[name], *answer]
    maps = attention_maps(golden_model(name), answer, ids) if options else attention_maps(golden_model(name), ids)
    labels = {"source": [tokenizer.decode([i], special=True) for i in ids]}
    labels["answer"] = [tokenizer.decode([i], special=True) for i in answer] if options else labels["source"]
    for layer, weights in enumerate(maps[kind]):
        arguments = ("attention", TEXT, "-m", golden(name), "--kind", kind, "--layer", str(layer), *options, "--json")
        (mean,) = ask(*arguments).json
        assert mean["queries"] == labels["source" if kind == "encoder" else "answer"]
        assert mean["keys"] == labels["answer" if kind == "decoder" else "source"]
        assert np.array(mean["weights"]) == pytest.approx(weights.mean(axis=0), abs=1e-5)
        assert np.array(mean["weights"]).sum(axis=1) == pytest.approx(1, abs=1e-4)
        (one,) = ask(*arguments, "--head", "1").json
        assert (one["title"], one["weights"]) == (f"{kind}, layer {layer}, head 1", pytest.approx(weights[1], abs=1e-5))
        assert ask(*arguments, "--head", str(1 - len(weights))).json == [one]
        every = ask(*arguments, "--all-heads").json
        assert [np.array(one["weights"]) for one in every] == [pytest.approx(head, abs=1e-5) for head in weights]
    last = ask("attention", TEXT, "-m", golden(name), "--kind", kind, *options, "--json").json
    assert last == ask("attention", TEXT, "-m", golden(name), "--kind", kind, "--layer", str(len(maps[kind]) - 1), *options, "--json").json


def test_without_an_answer_it_is_what_translate_writes(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    """By the folder's own beams and rules; cross-attention is what is shown."""
    folder = copy_golden("marian")
    settings = {"decoder_start_token_id": 1, "eos_token_id": 2, "num_beams": 2, "max_length": 6, "no_repeat_ngram_size": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (shown,) = ask("attention", "a line", "-m", folder, "--json").json
    assert shown["title"] == "cross, layer 1, mean of 2 heads"
    assert len(shown["queries"]) == 6
    translated = ask("translate", "a line", "-m", folder).out.removesuffix("\n")
    kept = [piece for piece in shown["queries"][1:] if "\N{REPLACEMENT CHARACTER}" not in piece]
    assert [piece for piece in kept if piece not in translated] == []
    assert len(set(shown["queries"][1:])) > 1


def test_the_answer_is_the_likeliest_even_where_the_folder_draws_tokens(ask: Ask, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden("marian")
    settings = {"decoder_start_token_id": 1, "eos_token_id": 2, "num_beams": 1, "max_length": 12, "do_sample": True, "temperature": 5.0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    maps = [ask("attention", "a line", "-m", folder, "--json").json for _ in range(3)]
    assert maps[0] == maps[1] == maps[2]


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_a_map_fits_the_terminal(ask: Ask, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for extra in ([], ["--all-heads"]):
        said = ask("attention", TEXT * 2, "-m", golden("gpt2"), *extra)
        assert max(map(len, said.out.splitlines())) <= columns
        assert "█" in said.out
        assert "\x1b" not in said.out
        assert said.err == ""
    assert ask("attention", TEXT, "-m", golden("gpt2")).out.startswith("decoder, layer 1, mean of 4 heads\n")


def test_a_picture(ask: Ask, tmp_path: Path) -> None:
    said = ask("attention", TEXT, "-m", golden("bert"), "--svg", tmp_path / "map.svg", "--all-heads")
    assert said.out == said.err == ""
    root = ElementTree.parse(tmp_path / "map.svg").getroot()
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"encoder 1.0", "encoder 1.3", "<", ">", "&"} <= {(text or "").strip() for text in texts}


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["x", "-m", golden("gpt2"), "--kind", "cross"], ["--kind cross: gpt2 is decoder-only", "--kind decoder"], 2),
        (["x", "-m", golden("bert"), "--kind", "decoder"], ["bert is encoder-only", "--kind encoder"], 2),
        (["x", "-m", golden("gpt2"), "--layer", "2"], ["--layer 2: there are 2 layers", "0 to 1"], 2),
        (["x", "-m", golden("gpt2"), "--layer", "-3"], ["--layer -3: there are 2 layers"], 2),
        (["x", "-m", golden("gpt2"), "--head", "4"], ["--head 4: there are 4 heads", "0 to 3"], 2),
        (["x", "-m", golden("gpt2"), "--head", "-5"], ["--head -5: there are 4 heads"], 2),
        (["x", "-m", golden("gpt2"), "--head", "1", "--all-heads"], ["--head and --all-heads exclude each other"], 2),
        (["x", "-m", golden("gpt2"), "--svg", "x", "--json"], ["--svg and --json exclude each other"], 2),
        (["x", "-m", golden("gpt2"), "--svg", "missing/x.svg"], ["cannot write missing/x.svg: No such file"], 2),
        (["x", "-m", golden("gpt2"), "--svg", "."], ["cannot write .: Is a directory", "name a file"], 2),
        (["x", "-m", golden("gpt2"), "--answer", "y"], ["--answer is for encoder-decoders; gpt2 is decoder-only"], 2),
        (["x", "-m", golden("mamba")], ["mamba has no attention", "tgen explain"], 2),
        (["", "-m", golden("gpt2")], ["the text is empty"], 2),
        (["x" * 65, "-m", golden("gpt2")], ["the text has 65 tokens, the model's context is 64"], 5),
        (["x", "-m", golden("marian"), "--answer", "x" * 64], ["the answer has 65 tokens, the model's context is 64"], 5),
    ],
)
def test_what_cannot_be_shown(ask: Ask, arguments: list[str], words: list[str], code: int) -> None:
    err = ask("attention", *arguments, code=code).err
    assert [word for word in words if word not in err] == [], err
