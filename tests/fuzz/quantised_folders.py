"""Damage to folders whose weights are quantised: their settings, the tensors that make one weight, and the numbers in these."""

from __future__ import annotations

import json
import shutil
import struct
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint import quantisers as q
from tests.checkpoint.forms import WEIGHTS
from tests.checkpoint.quantised import in_two_folders
from tests.checkpoint.test_experts import packed_folder
from tests.checkpoint.test_methods import METHODS
from tests.conftest import GOLDEN
from tests.fuzz import weights
from tests.fuzz.files import bits
from tests.fuzz.mutation import QUANTISED, edit_json, mutation
from tests.fuzz.values import VALUES

KIND = "quantised"
SETTINGS = ("quantization_config", "quantization")
GOLDENS = (*METHODS, "bitsandbytes", "mxfp4")
NUMBERS = ("007c", "007e", "0000", "ff7b", "0000807f", "0000c07f", "00000000", "ffffffff", "ffffff7f", "00000080")


def write(name: str, folder: Path) -> None:
    """A whole folder of a method."""
    if name == "mxfp4":
        packed_folder(shutil.copytree(GOLDEN / "gpt_oss", folder))
        return
    made = folder.parent / f"{folder.name} made"
    settings = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    quantise, config = METHODS[name][:2] if name in METHODS else (_nibbles, settings)
    quantised, _ = in_two_folders(made, quantise, config)
    shutil.copytree(quantised, folder)
    shutil.rmtree(made)


def _nibbles(matrix: torch.Tensor) -> q.Quantised:
    """Any numbers as bitsandbytes stores 4 bits."""
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(matrix.shape)}
    parts = {
        "weight": torch.arange(matrix.numel() // 2, dtype=torch.int64).remainder(256).to(torch.uint8)[:, None],
        "weight.absmax": torch.full((matrix.numel() // 64,), 0.1),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    return parts, matrix


def command_line(folder: Path, random: Random) -> list[str]:
    """Three tokens from either executor, at times with the weights quantised anew, or what there is to know of the folder."""
    if random.random() < 0.2:
        return ["info", "-m", str(folder)]
    executor = random.choice(["native", "native", "torch"])
    more = random.choice([[], [], ["--quantize", "int8"], ["--quantize", "int4"]]) if executor == "native" else []
    return ["generate", "Once upon", "-n", "3", "--ignore-eos", "--executor", executor, "-t", "2", *more, "-m", str(folder)]


damaged = partial(mutation, KIND, QUANTISED, goldens=GOLDENS)
for damage in (bits, weights.exchanged, weights.types, weights.shapes):  # other damage looks the same in every folder
    damaged()(damage)


@damaged()
def settings(folder: Path, random: Random) -> None:
    """A key of the settings with another value, without one, or one that nobody knows; or something else in place of all of them."""

    def change(values: dict[str, Any]) -> None:
        key = next(key for key in SETTINGS if key in values)
        found = values[key]
        match random.randrange(5):
            case 0:
                values[key] = random.choice(VALUES)
            case 1:
                del found[random.choice(list(found))]
            case 2:
                found[
                    random.choice(["bits", "group_size", "desc_act", "format", "weight_block_size", "model.layers.0.mlp.up_proj", "x"])
                ] = random.choice(VALUES)
            case _:
                place = found
                while isinstance(place, dict) and place:
                    name = random.choice(list(place))
                    if not isinstance(place[name], dict) or not place[name] or random.random() < 0.3:
                        place[name] = random.choice([*VALUES, 2, 3, 4, 8, 16, 31, 32, 64, 1000])
                        break
                    place = place[name]

    edit_json(folder / "config.json", change)


@damaged()
def parts(folder: Path, random: Random) -> None:
    """A module without one of its tensors, with one of another module's, or with one too many."""
    tensors = load_file(folder / WEIGHTS)
    one, other = random.choice(_narrow(tensors)), random.choice(list(tensors))
    match random.randrange(4):
        case 0:
            del tensors[one]
        case 1:
            tensors[one] = tensors[other].clone()
        case 2:
            tensors[f"{one.rpartition('.')[0]}.{random.choice(['weight', 'scales', 'g_idx', 'qzeros', 'weight_scale', 'bias'])}"] = tensors[
                other
            ].clone()
        case 3:
            tensors[one] = tensors[one][: random.choice([0, 1, len(tensors[one]) - 1])].clone() if tensors[one].ndim else tensors[one]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@damaged()
def other_numbers(folder: Path, random: Random) -> None:
    """Groups, zero points, scales and sizes that are absurd: each a number of the same width."""
    tensors = load_file(folder / WEIGHTS)
    name = random.choice(_narrow(tensors))
    raw = bytearray(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    width = tensors[name].element_size()
    for _ in range(random.choice([1, 1, 8, 1000])):
        number = bytes.fromhex(random.choice(NUMBERS)) if width > 1 else random.randbytes(1)
        number = random.choice([number, struct.pack("<i", random.choice([-1, 1, 2, 7, 31, 255, 2**31 - 1, -(2**31)]))])
        place = random.randrange(max(1, len(raw) // width)) * width
        raw[place : place + width] = (number * 8)[:width]
    found = torch.frombuffer(raw, dtype=torch.uint8).clone() if raw else torch.empty(0, dtype=torch.uint8)
    tensors[name] = found.view(tensors[name].dtype).reshape(tensors[name].shape)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _narrow(tensors: dict[str, torch.Tensor]) -> list[str]:
    """The names of the tensors that make quantised weights, among which are all that are no floats, and scales."""
    found = [name for name, tensor in tensors.items() if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16)]
    return found + [name for name in tensors if "scale" in name or "absmax" in name or "biases" in name]
