"""Decoding with few of many experts against computing all: `python -m tests.benchmarks.experts`.

Two folders share one file of random weights, a mixture of 64 experts; their config.json says how many of them a token takes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.conftest import spec_of
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.open import open_executor
from tgen.executors.session import LoadedModel
from tgen.families.registry import find_family
from tgen.options import RunOptions
from tgen.spec.shapes import parameters

EXPERTS, ACTIVE, STEPS, TURNS = 64, 8, 40, 5
CONFIG = {
    "model_type": "qwen3_moe",
    "vocab_size": 1000,
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1024,
    "moe_intermediate_size": 384,
    "num_experts": EXPERTS,
    "norm_topk_prob": True,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        models = {active: opened(Path(place) / str(active), active) for active in (ACTIVE, EXPERTS)}
        seconds: dict[int, list[float]] = {active: [] for active in models}
        for _ in range(TURNS):  # in turns, since other programs run beside this one
            for active, model in models.items():
                seconds[active].append(step_seconds(model))
    few, every = (statistics.median(seconds[active]) for active in (ACTIVE, EXPERTS))
    print(f"{ACTIVE} of {EXPERTS} experts: {1000 * few:.2f} ms a step; all: {1000 * every:.2f} ms; {every / few:.2f} times as fast")


def opened(folder: Path, active: int) -> LoadedModel:
    """A model with random weights of which a token takes so many experts."""
    folder.mkdir()
    config = {**CONFIG, "num_experts_per_tok": active}
    (folder / "config.json").write_text(json.dumps(config))
    spec, random = spec_of(config), torch.Generator().manual_seed(0)
    sources = find_family("qwen3_moe").tensors(spec).sources
    weights = {sources[name].name: 0.05 * torch.randn(shape, generator=random) for name, shape in parameters(spec).items()}
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, folder / "model.safetensors")
    return open_executor(open_checkpoint(folder), RunOptions())


def step_seconds(model: LoadedModel) -> float:
    """What a decode step takes."""
    session, token = model.open(), 7
    session.admit([None])
    session.extend([[1, 2, 3]])
    began = time.perf_counter()
    for _ in range(STEPS):
        token = int(np.argmax(session.extend([[token]])[0]))
    return (time.perf_counter() - began) / STEPS


if __name__ == "__main__":
    main()
