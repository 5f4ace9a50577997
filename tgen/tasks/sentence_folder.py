"""Reads a sentence-transformers folder: how its vectors are made, how much of a text is read, and the prompts before texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tgen.checkpoint.mapped import MappedFiles, widened
from tgen.checkpoint.matching import FLOATS
from tgen.checkpoint.safetensors import stored_tensors
from tgen.errors import CheckpointError, UnsupportedError, UsageError
from tgen.files import read_optional_json
from tgen.gguf_header import read_header
from tgen.options import Pooling
from tgen.tasks.embedding import Dense, Steps

# The keys of poolings, in the order in which a folder puts several of them side by side; NAMES has the values in newer folders.
MODES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "sqrt",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}
NAMES: dict[str, Pooling] = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "sqrt",
    "weightedmean": "weighted",
    "lasttoken": "last",
}
GGUF_POOLINGS: dict[int, Pooling] = {0: "mean", 1: "mean", 2: "first", 3: "last"}
ACTIVATIONS: dict[str, Literal["tanh", "relu", "identity"]] = {"Tanh": "tanh", "ReLU": "relu", "Identity": "identity"}
MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
HINT = "correct it or leave it out"


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """What a folder asks for: the steps, the most tokens read, whether text is lower-cased, and the prompts by their names."""

    steps: Steps = field(default_factory=Steps)
    longest: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def prompt(self, name: str | None) -> str:
        """The prompt of a name, or the default one. Raises UsageError for a name that the folder lacks."""
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = f"its prompts: {', '.join(self.prompts)}" if self.prompts else "leave --prompt-name out"
            raise UsageError(f"the model's folder has no prompt named {name!r}", known)
        return self.prompts[name]


def folder_settings(folder: Path, asked: Pooling | None = None) -> SentenceSettings:
    """The settings of a sentence-transformers folder or of a GGUF file; for another folder, the mean of all tokens.

    `asked` takes precedence over the folder's pooling. Raises UnsupportedError for a pooling or a further step that tgen does not
    implement, CheckpointError for an invalid value.
    """
    if folder.is_file():
        return SentenceSettings(Steps((asked or _gguf_pooling(folder),)))
    reading = read_optional_json(folder / "sentence_bert_config.json")
    longest = reading.get("max_seq_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 2):
        raise CheckpointError(f"sentence_bert_config.json: max_seq_length = {longest!r} is not a whole number, 2 or more", HINT)
    then: list[Dense | Literal["normalize"]] = []
    place = "1_Pooling"
    for kind, path in _modules(folder / "modules.json"):
        if kind == "Pooling":
            place = path or place
        elif kind == "Dense":
            then.append(_dense(_inside(folder, path)))
        elif kind == "Normalize":
            then.append("normalize")
    pooling = read_optional_json(_inside(folder, place) / "config.json")
    poolings = (asked,) if asked else _poolings(pooling, f"{place}/config.json")
    prompts, default = _prompts(read_optional_json(folder / "config_sentence_transformers.json"))
    steps = Steps(poolings, tuple(then), pooling.get("include_prompt") is not False)
    return SentenceSettings(steps, longest, reading.get("do_lower_case") is True, prompts, default)


def _poolings(settings: dict[str, Any], file: str) -> tuple[Pooling, ...]:
    asked = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    known: dict[str, Pooling] = MODES
    named = settings.get("pooling_mode")
    if isinstance(named, str) or (isinstance(named, list) and all(isinstance(one, str) for one in named)):
        asked, known = ([named] if isinstance(named, str) else named), NAMES
    unknown = [key for key in asked if key not in known]
    if unknown:
        raise UnsupportedError(f"{file}: {', '.join(unknown)} is not implemented", f"give --pooling {' or '.join(get_args(Pooling))}")
    order = list(known)
    return tuple(known[key] for key in sorted(asked, key=order.index)) or ("mean",)


def _gguf_pooling(path: Path) -> Pooling:
    """The pooling that a GGUF file asks for; the mean if it asks for none."""
    header = read_header(path)
    key = f"{header.text('general.architecture')}.pooling_type"
    kind = header.whole(key)
    if kind is not None and kind not in GGUF_POOLINGS:
        message = f"{path}: {key} = {kind} is not implemented"
        raise UnsupportedError(message, f"give --pooling {' or '.join(get_args(Pooling))}")
    return GGUF_POOLINGS[kind or 0]


def _modules(path: Path) -> list[tuple[str, str]]:
    """The class and the folder of each module in a modules.json; empty if there is no such file."""
    if not path.is_file():
        return []
    try:
        modules = [(module["type"].rpartition(".")[2], module.get("path", "")) for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a list of modules", "download the file again") from error
    if not all(isinstance(place, str) for _, place in modules):
        raise CheckpointError(f"{path} is not a list of modules", "download the file again")
    unknown = [kind for kind, _ in modules if kind not in MODULES]
    if unknown:
        raise UnsupportedError(f"modules.json: {', '.join(unknown)} is not implemented", f"tgen implements {', '.join(MODULES)}")
    return modules


def _inside(folder: Path, place: str) -> Path:
    """A folder inside a folder. Raises CheckpointError for a place outside it."""
    path = Path(place)
    if path.is_absolute() or ".." in path.parts or "\0" in place:
        raise CheckpointError(f"modules.json: the path {place!r} lies outside the folder", HINT)
    return folder / path


def _dense(folder: Path) -> Dense:
    """The matrix of a Dense module. Raises CheckpointError, UnsupportedError."""
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}, which modules.json names", "download the folder again")
    named = str(read_optional_json(folder / "config.json").get("activation_function", "Tanh")).rpartition(".")[2]
    if named not in ACTIVATIONS:
        raise UnsupportedError(f"{folder.name}/config.json: {named} is not implemented", f"tgen implements {', '.join(ACTIVATIONS)}")
    files, stored = MappedFiles(), stored_tensors(folder)
    found = {name: np.ascontiguousarray(widened(files.array(one), one.dtype)) for name, one in stored.items() if one.dtype in FLOATS}
    weight, bias = found.get("linear.weight"), found.get("linear.bias")
    if weight is None or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]) or len(stored) > 2:
        raise CheckpointError(f"{folder} does not hold one matrix and its bias", "download the folder again")
    return Dense(weight, bias, ACTIVATIONS[named])


def _prompts(settings: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the one that every text gets."""
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise CheckpointError("config_sentence_transformers.json: prompts is not an object of texts", HINT)
    if default is not None and default not in prompts:
        message = f"config_sentence_transformers.json: default_prompt_name = {default!r} is none of the prompts"
        raise CheckpointError(message, HINT)
    return prompts, default
