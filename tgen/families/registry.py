"""Maps each `model_type` to the family module that reads it."""

from __future__ import annotations

import difflib
from typing import Protocol

from tgen.errors import UnsupportedError
from tgen.families import bart, bert, bloom, gemma, gpt2, gpt_neox, llama, opt, phi, phi3, t5
from tgen.families.config import Config
from tgen.families.table import Table
from tgen.spec.records import ModelSpec


class Family(Protocol):
    """The functions of a family module."""

    def spec(self, config: Config) -> ModelSpec: ...
    def tensors(self, spec: ModelSpec) -> Table: ...


FAMILIES: dict[str, Family] = {
    "bart": bart,
    "bert": bert,
    "bloom": bloom,
    "gemma2": gemma,
    "gemma3_text": gemma,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "marian": bart,
    "mistral": llama,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "qwen2": llama,
    "qwen3": llama,
    "roberta": bert,
    "t5": t5,
}


def find_family(model_type: str) -> Family:
    """The module for a `model_type`. Raises UnsupportedError, naming the nearest known one."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    nearest = difflib.get_close_matches(model_type, FAMILIES, n=1, cutoff=0.0)[0]
    raise UnsupportedError(
        f"config.json: model_type = {model_type!r} is not implemented", f"nearest implemented: {nearest}; all: {', '.join(FAMILIES)}"
    )
