"""Folders as the hub has them: every key of their config.json is read or known, nothing in them asks for a warning, every tensor that
they hold beside the model's own has its place, and they have as many parameters as their makers say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.families.official_encoders import FOLDERS, SIZES
from tests.families.official_gemmas import GEMMAS
from tests.families.official_hybrids import COUNTS, HYBRIDS
from tests.families.official_mixtures import COMMON, MIXTURES, ROUTER
from tgen.checkpoint.generation import parse_generation
from tgen.checkpoint.matching import match_tensors, settle_head
from tgen.checkpoint.quantised.find import find_method
from tgen.checkpoint.stored import StoredTensor
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.families.table import ONE_ROW, Member
from tgen.spec.records import ModelSpec
from tgen.spec.shapes import active_parameter_count, parameter_count, parameters


@dataclass(frozen=True, slots=True)
class Official:
    """A config.json, what the weights hold beside the model's own tensors, and whether they hold the head that fills masks or writes.

    `count` is how many parameters there are, `active` how many take part in a token; None is not compared.
    """

    values: dict[str, Any]
    others: tuple[str, ...] = ()
    headed: bool = True
    count: float | None = None
    active: float | None = None


OFFICIAL = {name: Official(*folder, SIZES.get(name)) for name, folder in FOLDERS.items()}
for mixture, (values, count, active) in MIXTURES.items():
    router = ROUTER if values["model_type"] != "minicpm3" else {}
    OFFICIAL[mixture] = Official({**COMMON, **router, **values}, count=1e9 * count, active=1e9 * active)
for hybrid, values in (HYBRIDS | GEMMAS).items():
    common = {key: value for key, value in COMMON.items() if key != "hidden_act"}
    OFFICIAL[hybrid] = Official({**common, **values}, (), True, *COUNTS.get(hybrid, ()))


def files_of(official: Official, spec: ModelSpec) -> dict[str, StoredTensor]:
    """The tensors of such a folder."""
    table, stored = find_family(official.values["model_type"]).tensors(spec), dict[str, StoredTensor]()
    for parameter, shape in parameters(spec).items():
        source = table.sources[parameter]
        if not official.headed and parameter.startswith("head."):
            continue
        size = math.prod(shape)
        if source.take and source.name in stored:
            size += math.prod(stored[source.name].shape)
        found = (size // shape[-1], shape[-1]) if len(shape) > 1 else (1, *shape) if source.take == ONE_ROW else shape
        stored[source.name] = StoredTensor(Path("x"), "F32", found, 0, 4 * size)
    embedding = stored[table.sources["embedding.weight"].name]
    for other in official.others:
        stored.setdefault(other, embedding)
    return stored


@pytest.mark.parametrize("name", OFFICIAL)
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
        stored = files_of(official, spec)
        spec = settle_head(family.tensors, spec, stored)
        match_tensors(family.tensors(spec), spec, stored)
    assert (spec.head is not None) == official.headed
    if spec.head is not None and official.values.get("tie_word_embeddings") is not False:  # a stored copy of the embeddings
        spec = replace(spec, head=replace(spec.head, tied=True))
    if official.count is not None:
        assert parameter_count(spec) == pytest.approx(official.count, rel=0.02 if official.active is None else 0.01)
    if official.active is not None:
        assert active_parameter_count(spec) == pytest.approx(official.active, rel=0.05)
