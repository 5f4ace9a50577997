"""A family that tgen does not know gets the nearest one by structure, whatever its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.checkpoint.damage import edit
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import UnsupportedError
from tgen.families.registry import FAMILIES

CopyGolden = Callable[[str], Path]


def hint(folder: Path, **changes: Any) -> str:
    """The hint for a folder whose config.json is changed so that its type is not known."""
    edit(folder / "config.json", **changes)
    with pytest.raises(UnsupportedError, match=f"model_type = {changes['model_type']!r} is not implemented") as caught:
        open_checkpoint(folder)
    return str(caught.value.hint)


@pytest.mark.parametrize(
    ("golden", "name", "nearest"),
    [
        ("llama3", "lama", "llama"),
        ("llama3", "qwen9", "llama"),
        ("starcoder2", "roberta2", "starcoder2"),
        ("granite", "marian2", "granite"),
        ("pegasus", "gemma22", "blenderbot"),  # the same layers; their positions alone differ, which no file names
        ("deepseek_v3", "phi33", "deepseek_v3"),
        ("qwen2", "bert", "qwen2"),
        ("gpt_oss", "gpt2_oss", "gpt_oss"),
        ("gemma3_images", "llama", "gemma3"),
        ("mamba", "bart_mamba", "mamba"),
    ],
)
def test_the_nearest_family_is_the_nearest_by_structure(golden: str, name: str, nearest: str, copy_golden: CopyGolden) -> None:
    said = hint(copy_golden(golden), model_type=name if name not in FAMILIES else f"{name}_of_tomorrow")
    assert said.startswith(f"nearest implemented: {nearest}, which knows all its keys; all: ")
    assert all(family in said for family in FAMILIES)


def test_keys_that_the_nearest_family_does_not_know_are_named(copy_golden: CopyGolden) -> None:
    said = hint(copy_golden("llama3"), model_type="lama", logit_soft_sign=1, mup_width=2, depth_scale=3, warp=4)
    assert "nearest implemented: llama, which does not know logit_soft_sign, mup_width, depth_scale and others; all: " in said


def test_a_model_without_images_is_not_read_as_the_text_model_of_one(copy_golden: CopyGolden) -> None:
    folder = copy_golden("llama3")
    (folder / "config.json").write_text(json.dumps({"hidden_size": 16, "vocab_size": 288, "blocksparse_block_size": 64}))
    for path in folder.glob("model*"):
        path.unlink()
    assert hint(folder, model_type="phi3small").startswith("none that is implemented reads such a config.json; all: ")


def test_damaged_weights_do_not_hide_what_the_config_says(copy_golden: CopyGolden) -> None:
    folder = copy_golden("gemma2")
    (folder / "model.safetensors").write_bytes(b"")
    assert hint(folder, model_type="gamma").startswith("nearest implemented: gemma2, ")


def test_a_model_of_another_kind_has_no_nearest(copy_golden: CopyGolden) -> None:
    folder = copy_golden("llama3")
    (folder / "config.json").write_text(json.dumps({"projection_dim": 512, "text_config": {}, "vision_config": {}}))
    for path in folder.glob("model*"):
        path.unlink()
    save_file({"vision_model.post_layernorm.weight": np.ones(4), "logit_scale": np.ones(1)}, folder / "model.safetensors")
    assert hint(folder, model_type="clip").startswith("none that is implemented reads such a config.json; all: ")
    assert hint(folder, model_type="vit", text_config=[]).startswith("none that is implemented reads such a config.json; all: ")
