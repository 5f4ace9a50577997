"""Folders as the hub has them: every key of their config.json is read or known, nothing in them asks for a warning, every tensor that
they hold beside the model's own has its place, and they have as many parameters as their makers say.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.families.catalogue import OFFICIAL
from tests.families.official import stored_shapes
from tests.sweeps import sweep
from tgen.checkpoint.generation import parse_generation
from tgen.checkpoint.matching import match_tensors, settle_head
from tgen.checkpoint.quantised.find import find_method
from tgen.checkpoint.stored import StoredTensor
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.families.table import Member
from tgen.spec.shapes import active_parameter_count, parameter_count, parameters

# Mixtures with ten thousand tensors and more, which take seconds to match. `test_official_folders` runs smaller ones of each in every run.
LARGE = {
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "deepseek-ai/DeepSeek-V3",
    "zai-org/GLM-4.5-Air",
}


@pytest.mark.parametrize("name", sweep(OFFICIAL, lambda name: name not in LARGE))
def test_an_official_folder_runs_without_a_word(name: str) -> None:
    official = OFFICIAL[name]
    config = Config(official.values)
    family = find_family(config.model_type)
    spec = family.spec(config)
    assert (find_method(config, Path("none")) is not None) == ("quantization_config" in official.values)
    config.refuse_unread()
    parse_generation({}, spec.vocab, official.values, answers=spec.kind == "encoder-decoder")
    table = family.tensors(spec)
    assert table.sources.keys() == parameters(spec).keys()
    if not any(isinstance(step, Member) for source in table.sources.values() for step in source.take):
        shapes = stored_shapes(official, official.values)
        file = Path("x")
        stored = {name: StoredTensor(file, "F32", shape, 0, 4 * math.prod(shape)) for name, shape in shapes.items()}
        settled = settle_head(family.tensors, spec, stored)
        match_tensors(table if settled == spec else family.tensors(settled), settled, stored)
        spec = settled
    assert (spec.head is not None) == official.headed
    if spec.head is not None and official.values.get("tie_word_embeddings") is not False:  # a stored copy of the embeddings
        spec = replace(spec, head=replace(spec.head, tied=True))
    if official.count is not None:
        assert parameter_count(spec) == pytest.approx(official.count, rel=0.02 if official.active is None else 0.01)
    if official.active is not None:
        assert active_parameter_count(spec) == pytest.approx(official.active, rel=0.05)
