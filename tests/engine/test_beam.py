"""Beam and greedy search give the very ids that transformers gives, under every rule a folder may set."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.conftest import DECODERS, GOLDEN, config_of, golden_model
from tests.engine.scripted import byte_tokenizer
from tests.sweeps import sweep
from tgen.checkpoint.generation import parse_generation
from tgen.engine.beam import BeamSettings, Search
from tgen.engine.generator import Generator
from tgen.engine.request import Request
from tgen.events import Finished
from tgen.executors.torch.session import TorchExecutor

Ids = list[int]

NEW = 12
WRITERS = [name for name in DECODERS if (GOLDEN / name / "written.json").exists()]
WRITTEN: dict[str, list[dict[str, Any]]] = {name: json.loads((GOLDEN / name / "written.json").read_text()) for name in WRITERS}
# Two models are tested with every setting in every run, the others with their first: what they do alone is in their executor.
RUNS = sweep(
    ((name, run) for name in WRITERS for run in WRITTEN[name]), lambda one: one[0] in ("bart", "llama2") or one[1] is WRITTEN[one[0]][0]
)


def ends(name: str, settings: dict[str, Any]) -> frozenset[int]:
    values = config_of(name)
    found = settings.get("eos_token_id", values.get("text_config", values)["eos_token_id"])
    return frozenset(found if isinstance(found, list) else [found])


def written(name: str, settings: dict[str, Any], prompts: list[Ids], rows: int) -> list[Ids]:
    """The model's answers to these prompts, at most `rows` rows at a time."""
    spec, config = golden_model(name).spec, config_of(name)
    generator = Generator(
        TorchExecutor(golden_model(name)),
        byte_tokenizer(),
        context=spec.context,
        vocab=spec.vocab,
        end_tokens=ends(name, settings),
        answer_start=config["decoder_start_token_id"] if spec.encoder else None,
        defaults=parse_generation(settings, spec.vocab),
    )
    resolved = generator.resolve({"max_new_tokens": NEW, "temperature": 0})
    requests = iter([Request(number, prompt, resolved) for number, prompt in enumerate(prompts)])
    found = [(key, event.ids) for key, event in generator.run_many(lambda _: next(requests, None), rows) if isinstance(event, Finished)]
    return [list(ids) for _, ids in sorted(found)]


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_one_by_one_and_together(name: str, run: dict[str, Any]) -> None:
    """Requests beside it that end sooner or later do not change a text. A single beam is greedy: the sampler at temperature 0."""
    settings, prompts = run["settings"], run["prompts"]
    for rows in (1, 2 * settings["num_beams"], 100):
        assert written(name, settings, prompts, rows) == run["answers"]


@pytest.mark.parametrize("name", WRITERS)
def test_settings_show(name: str) -> None:
    """The comparison can fail: most settings lead to different answers."""
    assert len({json.dumps(run["answers"]) for run in WRITTEN[name]}) > len(WRITTEN[name]) / 2


def test_probabilities_add_up_to_one_again_where_the_folder_asks_for_it() -> None:
    """Without the token that a rule forbids, the others are likelier."""
    probabilities = np.array([[0.5, 0.3, 0.2, 0]], dtype=np.float32).repeat(2, axis=0)
    with np.errstate(divide="ignore"):
        left = np.log(probabilities * np.array([0, 1, 1, 1], dtype=np.float32))
    for renormalised, expected in ((False, [0.3, 0.2]), (True, [0.6, 0.4])):
        search = Search(BeamSettings(2, renormalised=renormalised), frozenset(), 9)
        search.advance(left)
        assert np.exp(search.scores) == pytest.approx(expected)
