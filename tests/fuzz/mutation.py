"""What a mutation is, and the folders that mutations start from: the goldens, in every form that weights can have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file

from tests.checkpoint.forms import BIN, WEIGHTS, as_bin, as_bin_of_2019, as_bin_shards, as_shards
from tests.checkpoint.gguf_files import write_gguf
from tests.checkpoint.quantised import floats
from tests.conftest import DECODERS, GOLDEN, GOLDENS
from tgen.families.config import HARMLESS

INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
SINGLE, SHARDS, ONE_BIN, OLD_BIN, BIN_SHARDS = "safetensors", "shards", "bin", "old bin", "bin shards"
GGUF_FILE, GGUF_BLOCKS, QUANTISED = "gguf", "gguf blocks", "quantised"  # only for damage that asks for them
FORMS = (SINGLE, SHARDS, ONE_BIN, OLD_BIN, BIN_SHARDS)
JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", INDEX, BIN_INDEX)

# Changes a folder; the answer says whether only a refusal is right from now on.
Change = Callable[[Path, Random], bool | None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A way to damage a folder, which must have one of these forms; `goldens` are what it starts from.

    `heavy` ones write much, and are left out of the tests.
    """

    kind: str
    name: str
    change: Change
    forms: tuple[str, ...]
    goldens: tuple[str, ...]
    heavy: bool


MUTATIONS: list[Mutation] = []


def mutation(kind: str, *forms: str, goldens: tuple[str, ...] = tuple(GOLDENS), heavy: bool = False) -> Callable[[Change], Change]:
    """Register the decorated function under a kind."""

    def register(change: Change) -> Change:
        MUTATIONS.append(Mutation(kind, change.__name__, change, forms or FORMS, goldens, heavy))
        return change

    return register


class Bases:
    """Whole folders to copy and damage, each written once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, golden: str, form: str) -> Path:
        """A golden in a form of weights."""
        folder = self._root / f"{golden} {form}"
        if folder.exists():
            return folder
        if form == QUANTISED:
            from tests.fuzz.quantised_folders import write

            write(golden, folder)
            return folder
        folder.mkdir(parents=True)
        if form in (GGUF_FILE, GGUF_BLOCKS):  # no golden is wide enough for blocks
            source, kind = (GOLDEN / golden, "F16") if form == GGUF_FILE else (floats("untied"), "Q5_1" if golden == "gpt2" else "Q8_0")
            write_gguf(source, folder / "model.gguf", kind)
            return folder
        for path in (GOLDEN / golden).glob("*.json"):
            if not path.name.endswith("index.json") and path.name != "written.json":
                shutil.copy(path, folder)
        tensors = _tensors(GOLDEN / golden)
        match form:
            case "safetensors":
                from safetensors.torch import save_file

                save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
            case "shards":
                as_shards(folder, {name: tensor.clone() for name, tensor in tensors.items()})
            case "bin":
                as_bin(folder, tensors)
            case "old bin":
                as_bin_of_2019(folder, tensors)
            case "bin shards":
                as_bin_shards(folder, tensors)
        return folder


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / BIN).exists():
        stored: dict[str, torch.Tensor] = torch.load(folder / BIN, weights_only=True)
        return stored
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def command_line(folder: Path, golden: str, random: Random) -> list[str]:
    """A command for a folder's kind of model: most often the one that the model is for."""
    text = random.choice(
        ["Once upon a time", "a" * 55 + "!", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "The cat sat on the 12 mats.", " é\n[/INST]"]
    )
    if golden in DECODERS:
        kind = json.loads((GOLDEN / golden / "config.json").read_text())["model_type"]
        translator = kind in ("bart", "marian", "t5")
        usual = [["generate", text, "-n", "3"], ["generate", text, "-n", "3", "--ignore-eos", "--samples", "2"]]
        rare = [["translate", text, "-n", "3"]] if translator else [["score", text], ["explain", text, "-n", "2"]]
    else:
        usual = [["fill", "The [MASK] sat."], ["fill", "A <mask>"]] if golden != "bert_headless" else []
        rare = [["embed", text]]
    rare += [["info"], ["tokenize", text]]
    chosen = random.choice(usual if usual and random.random() < 0.8 else rare)
    return [*chosen, "-m", str(folder)]


def json_files(folder: Path) -> list[Path]:
    """The JSON files that are there."""
    return [folder / name for name in JSON_FILES if (folder / name).exists()]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold weights."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".gguf"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON object in place; what cannot be JSON, such as NaN, is written as Python does."""
    value = json.loads(path.read_bytes()) if path.exists() else {}
    change(value)
    path.write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))


def keys_of_config(folder: Path) -> list[str]:
    """The keys of config.json that say something about arithmetic, and a few that do not."""
    keys = list(json.loads((folder / "config.json").read_bytes()))
    return [key for key in keys if key not in HARMLESS] + [key for key in keys if key in HARMLESS][::3]
