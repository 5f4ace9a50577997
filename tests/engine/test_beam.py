"""Beam and greedy search give the very ids that transformers gives, under every rule a folder may set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conftest import DECODERS, GOLDEN, config_of, golden_model
from tgen.checkpoint.generation import GenerationConfig, parse_generation
from tgen.engine.beam import Search, adjustment, beam_search, read_beams
from tgen.engine.loop import Loop
from tgen.executors.torch.session import TorchSession
from tgen.options import GenerationOptions
from tgen.sampling.rules import Rules, read_rules
from tgen.sampling.sampler import Sampler

Ids = list[int]

NEW = 12
WRITERS = [name for name in DECODERS if (GOLDEN / name / "written.json").exists()]
WRITTEN: dict[str, list[dict[str, Any]]] = {name: json.loads((GOLDEN / name / "written.json").read_text()) for name in WRITERS}
RUNS = [(name, run) for name in WRITERS for run in WRITTEN[name]]
GREEDY = [(name, run) for name, run in RUNS if run["settings"]["num_beams"] == 1]


def opened(name: str, prompts: Sequence[Ids]) -> tuple[TorchSession, list[Ids]]:
    """A session, and what its decoder reads first: the prompts, or a start token for each of the sources."""
    model = golden_model(name)
    if model.spec.encoder is None:
        return TorchSession(model, 4), list(prompts)
    return TorchSession(model, 4, prompts), [[config_of(name)["decoder_start_token_id"]]] * len(prompts)


def ends(name: str, settings: dict[str, Any]) -> frozenset[int]:
    found = settings.get("eos_token_id", config_of(name)["eos_token_id"])
    return frozenset(found if isinstance(found, list) else [found])


def folder_sets(name: str, settings: dict[str, Any]) -> GenerationConfig:
    return parse_generation(settings, golden_model(name).spec.vocab)


def options_and_rules(name: str, settings: dict[str, Any], read: Ids) -> tuple[GenerationOptions, Rules]:
    penalty, size = settings.get("repetition_penalty", 1.0), settings.get("no_repeat_ngram_size", 0)
    options = GenerationOptions(max_new_tokens=NEW, temperature=0, repetition_penalty=penalty, no_repeat_ngram_size=size)
    return options, read_rules(folder_sets(name, settings), options, ends(name, settings), prompt=len(read))


def searched(name: str, settings: dict[str, Any], prompts: list[Ids]) -> list[Ids]:
    """What beam search writes to all of these."""
    session, read = opened(name, prompts)
    searches = [Search(read_beams(folder_sets(name, settings), settings["num_beams"]), ends(name, settings), NEW) for _ in prompts]
    beam_search(session, read, searches, adjustment(*options_and_rules(name, settings, read[0])))
    return [search.best(1)[0] for search in searches]


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_beams(name: str, run: dict[str, Any]) -> None:
    """One by one and all in one session: neighbours that end sooner or later change nothing."""
    settings, prompts = run["settings"], run["prompts"]
    assert [searched(name, settings, [prompt])[0] for prompt in prompts] == run["answers"]
    if golden_model(name).spec.encoder or "min_length" not in settings:  # which counts prompts, and these are of unlike lengths
        assert searched(name, settings, prompts) == run["answers"]


@pytest.mark.parametrize(("name", "run"), GREEDY)
def test_greedy(name: str, run: dict[str, Any]) -> None:
    """The loop that samples, at temperature 0."""
    for prompt, answer in zip(run["prompts"], run["answers"], strict=True):
        session, read = opened(name, [prompt])
        options, rules = options_and_rules(name, run["settings"], read[0])
        loop = Loop(session, read, [Sampler(options, 0, 0, read[0], rules)], [0])
        assert [loop.column()[0].token for _ in answer] == answer
        assert len(answer) == NEW or answer[-1] in ends(name, run["settings"])


@pytest.mark.parametrize("name", WRITERS)
def test_settings_show(name: str) -> None:
    """The reference can fail: most settings lead to answers of their own."""
    assert len({json.dumps(run["answers"]) for run in WRITTEN[name]}) > 9
