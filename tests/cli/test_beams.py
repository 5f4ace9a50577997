"""`--num-beams`: what it finds, how many, and what it cannot be asked together with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Ask
from tests.cli.processes import golden
from tests.conftest import GOLDEN, config_of, golden_model
from tests.engine.oracle import search_alone
from tgen.checkpoint.generation import GenerationConfig, parse_generation
from tgen.engine.beam import Search, read_beams
from tgen.errors import UsageError
from tgen.executors.torch.session import TorchExecutor
from tgen.options import DECLARED, GenerationOptions, resolve
from tgen.sampling.rules import read_rules
from tgen.text.tokenizer import Tokenizer

NEW, VOCAB = 7, 288


def searched(name: str, text: str, beams: int, count: int, options: GenerationOptions) -> list[str]:
    """The best texts of a search by itself."""
    tokenizer, model = Tokenizer.load(GOLDEN / name), golden_model(name)
    config, ids = config_of(name), tokenizer.encode(text)
    ends = frozenset([config["eos_token_id"]])
    source, read = (ids, [config["decoder_start_token_id"]]) if model.spec.encoder else (None, ids)
    rules = read_rules(GenerationConfig(), options, ends, prompt=len(read))
    search = search_alone(TorchExecutor(model), read, Search(read_beams(GenerationConfig(), beams), ends, NEW), options, rules, source)
    return [tokenizer.decode(ids) for ids in search.best(count)]


@pytest.mark.parametrize("extra", [{}, {"repetition_penalty": 3.0}])
@pytest.mark.parametrize("name", ["llama2", "marian", "t5"])
def test_generate_writes_the_best_of_the_search(ask: Ask, name: str, extra: dict[str, Any]) -> None:
    options = ["--repetition-penalty", "3"] if extra else []
    said = ask("generate", "Once", "-m", golden(name), "--num-beams", "4", "--samples", "3", "-n", str(NEW), "--json", *options)
    choices = said.json["choices"]
    assert [choice["text"] for choice in choices] == searched(
        name, "Once", 4, 3, GenerationOptions(max_new_tokens=NEW, temperature=0, **extra)
    )
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in choices} <= {"stop", "length"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-beams", "2", "--temperature", "0.7"], ["--num-beams and --temperature exclude each other"]),
        (["--num-beams", "2", "--top-k", "5"], ["--num-beams and --top-k exclude each other"]),
        (["--num-beams", "2", "--presence-penalty", "1"], ["--num-beams and --presence-penalty exclude each other"]),
        (["--num-beams", "2", "--logprobs", "1", "--json"], ["--num-beams and --logprobs exclude each other"]),
        (["--num-beams", "2", "--show-probs"], ["--num-beams and --logprobs exclude each other"]),
        (["--num-beams", "2", "--samples", "3"], ["--samples 3 is more than --num-beams 2"]),
        (["--num-beams", "0"], ["--num-beams must be between 1 and 256, not 0"]),
        (["--num-beams", "x"], ["--num-beams must be a whole number, not 'x'"]),
    ],
)
def test_what_does_not_go_together(ask: Ask, options: list[str], words: list[str]) -> None:
    """Said before the model is looked for."""
    err = ask("generate", "x", "-m", "missing", *options, code=2).err
    assert [word for word in words if word not in err] == [], err


@pytest.mark.parametrize(
    ("asked", "environment", "model", "beams"),
    [
        ({}, {}, {"num_beams": 4}, 4),
        ({"num_beams": 2}, {}, {"num_beams": 4}, 2),
        ({"temperature": 0.7}, {}, {"num_beams": 4}, 1),
        ({}, {"TGEN_TOP_P": "0.5"}, {"num_beams": 4, "do_sample": True}, 1),
        ({"logprobs": 3}, {}, {"num_beams": 4}, 1),
        ({"num_beams": 3}, {"TGEN_TEMPERATURE": "0.5"}, {}, 3),
        ({"num_beams": 3, "temperature": 0, "top_k": 9}, {}, {}, 3),
        ({"temperature": 0}, {}, {"num_beams": 4}, 4),
        ({"repetition_penalty": 1.5}, {}, {"num_beams": 4}, 4),
    ],
)
@pytest.mark.parametrize("answers", [False, True])
def test_asked_sampling_goes_before_the_folders_beams(
    asked: dict[str, Any], environment: dict[str, str], model: dict[str, Any], beams: int, answers: bool
) -> None:
    settings = parse_generation(model, VOCAB, answers=answers).options
    assert resolve(asked, environment, settings).options.num_beams == beams


def test_sampling_goes_before_the_folders_beams_only_if_it_changes_something() -> None:
    """Each option at its neutral value keeps the beams, and at any other does not, by flag and by environment."""
    model = {"num_beams": 4}
    excluded = {name: option for name, option in DECLARED.items() if option.beams == "exclude it"}
    filters = {"temperature", "top_n_sigma", "top_k", "top_p", "min_p", "typical_p", "xtc_probability", "mirostat_tau"}
    assert {*filters, "presence_penalty", "frequency_penalty", "dry_multiplier", "logprobs"} == set(excluded)
    for name, option in excluded.items():
        assert resolve({name: option.neutral}, {}, model).options.num_beams == 4
        assert resolve({name: 0.5 if option.metavar == "FLOAT" else 3}, {}, model).options.num_beams == 1
        assert resolve({name: option.neutral, "num_beams": 3}, {}, {}).options.num_beams == 3
        if option.environment:
            assert resolve({}, {f"TGEN_{name.upper()}": str(option.neutral)}, model).options.num_beams == 4
            assert resolve({}, {f"TGEN_{name.upper()}": "0.5" if option.metavar == "FLOAT" else "3"}, model).options.num_beams == 1


def test_a_constraint_goes_before_the_folders_beams_but_not_with_beams_asked_for() -> None:
    assert resolve({"choices": ["a"]}, {}, {"num_beams": 4}).options.num_beams == 1
    with pytest.raises(UsageError, match="--choices and --num-beams exclude each other"):
        resolve({"choices": ["a"], "num_beams": 4}, {}, {})


TEXT = "Why do you keep telling me that it is not possible?"


def test_an_ambient_variable_changes_no_command_that_does_not_take_its_option(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A translation with the folder's beams stays the same; `tgen generate`, which samples, does as the variable says."""
    translated = ask("translate", TEXT).out
    assert ask("translate", TEXT, "--num-beams", "1").out != translated
    generated = ask("generate", TEXT, "-m", "english-french").out
    assert generated.strip() == translated.strip()
    monkeypatch.setenv("TGEN_TEMPERATURE", "0.7")
    monkeypatch.setenv("TGEN_TOP_K", "many")
    assert ask("translate", TEXT).out == translated
    monkeypatch.setenv("TGEN_TOP_K", "0")
    monkeypatch.setenv("TGEN_SEED", "1")
    assert ask("generate", TEXT, "-m", "english-french").out == ask("generate", TEXT, "-m", "english-french", "--num-beams", "1").out
