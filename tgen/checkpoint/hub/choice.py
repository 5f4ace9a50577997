"""Chooses the files of a repository that tgen needs. It sees only their names, and the index of a sharded model."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tgen.checkpoint.hub.cache import MARKS
from tgen.checkpoint.safetensors import BIN, BIN_INDEX, SAFETENSORS, SAFETENSORS_INDEX
from tgen.errors import CheckpointError

SMALL = {
    *MARKS,
    *("generation_config.json", "chat_template.jinja", "chat_template.json", "modules.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tekken.json"),
    "tiktoken.model",
    *("source.spm", "target.spm"),
}
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
STEP = re.compile(r"(\d+_[^/]+)/(config\.json|model\.safetensors|pytorch_model\.bin)")  # a step of sentence-transformers

ReadJson = Callable[[str], dict[str, Any]]


def choose(names: Collection[str], patterns: Sequence[str], read: ReadJson) -> list[str]:
    """The files to fetch: all that tgen reads, one form of the weights, and every file that matches one of `patterns`.

    The files in MARKS come last, so that an interrupted pull leaves no folder that looks like a whole model. `read` fetches a JSON file.
    Raises CheckpointError for a repository that holds no model, and for a pattern that matches no file.
    """
    chosen = {name for name in names if name in SMALL}
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise CheckpointError(f"no file fits --include {pattern}", f"its files: {', '.join(sorted(names))}")
        chosen.update(fitting)
    weights = _weights(names, read)
    if not patterns:
        _check(names, weights)
    chosen.update(weights)
    if "modules.json" in names:
        chosen.update(_steps(names))
    return sorted(chosen, key=lambda name: (name in MARKS, name))


def _weights(names: Collection[str], read: ReadJson) -> list[str]:
    """The files of the weights: safetensors if the repository has them, else `.bin`, and an adapter's beside them."""
    adapter = [name for name in ADAPTER if name in names][:1]
    for single, index in ((SAFETENSORS, SAFETENSORS_INDEX), (BIN, BIN_INDEX)):
        if single in names:
            return [*adapter, single]
        if index in names:
            shards = read(index).get("weight_map")
            named = set(map(str, shards.values())) if isinstance(shards, dict) else set()
            if missing := sorted(named - set(names)):
                raise CheckpointError(f"{index} names {missing[0]}, which the repository lacks", "ask its authors to upload the file")
            return [*adapter, index, *sorted(named)]
    return adapter


def _steps(names: Collection[str]) -> list[str]:
    """The files of the further steps of a sentence-transformers folder."""
    found = [match for name in names if (match := STEP.fullmatch(name))]
    safe = {match[1] for match in found if match[2] == SAFETENSORS}
    return [match[0] for match in found if not (match[2] == BIN and match[1] in safe)]


def _check(names: Collection[str], weights: Sequence[str]) -> None:
    present = ", ".join(sorted(names)[:20])
    if not any(mark in names for mark in MARKS):
        raise CheckpointError("it holds no model that tgen reads: no config.json", f"it holds {present}; --include fetches any of these")
    if not weights:
        raise CheckpointError(
            f"it holds no weights that tgen reads: neither {SAFETENSORS} nor {BIN}", f"it holds {present}; --include fetches any of these"
        )
