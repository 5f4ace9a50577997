"""Which family file reads which `model_type`: the one place where a name decides anything."""

from __future__ import annotations

import difflib
from typing import Protocol

from tgen.errors import UnsupportedError
from tgen.families import bloom, gpt2, llama
from tgen.families.config import Config
from tgen.families.table import Table
from tgen.spec import ModelSpec


class Family(Protocol):
    """What a family module offers."""

    def spec(self, config: Config) -> ModelSpec: ...
    def tensors(self, spec: ModelSpec) -> Table: ...


FAMILIES: dict[str, Family] = {
    "bloom": bloom,
    "gpt2": gpt2,
    "llama": llama,
    "mistral": llama,
    "qwen2": llama,
    "qwen3": llama,
}


def find_family(model_type: str) -> Family:
    """The module for a `model_type`. Raises UnsupportedError, naming the nearest known one."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    nearest = difflib.get_close_matches(model_type, FAMILIES, n=1, cutoff=0.0)[0]
    raise UnsupportedError(
        f"config.json: model_type = {model_type!r} is not implemented", f"the nearest that is: {nearest}; all: {', '.join(FAMILIES)}"
    )
