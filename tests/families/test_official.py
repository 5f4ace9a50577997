"""Public mixtures of experts: every key of their config.json is known, and they have as many parameters as their makers say."""

from __future__ import annotations

import pytest

from tests.families.official import COMMON, OFFICIAL, ROUTER
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.spec.shapes import active_parameter_count, parameter_count, parameters


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_key_is_known_and_every_parameter_has_a_place(name: str) -> None:
    values, count, active = OFFICIAL[name]
    config = Config({**COMMON, **(ROUTER if "minicpm3" not in values["model_type"] else {}), **values})
    family = find_family(config.model_type)
    spec = family.spec(config)
    config.raw("quantization_config")  # read where the folder is opened
    config.refuse_unread()
    assert family.tensors(spec).sources.keys() == parameters(spec).keys()
    assert parameter_count(spec) / 1e9 == pytest.approx(count, rel=0.01)
    assert active_parameter_count(spec) / 1e9 == pytest.approx(active, rel=0.05)
