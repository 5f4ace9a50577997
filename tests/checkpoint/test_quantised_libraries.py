"""Quantised matrices as the methods' own libraries store them: tgen reads the numbers that the libraries make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from tests.conftest import GOLDEN
from tgen.checkpoint.mapped import MappedFiles
from tgen.checkpoint.quantised.find import find_method
from tgen.checkpoint.safetensors import stored_tensors
from tgen.families.config import Config

FOLDER = GOLDEN / "quantised"
with safe_open(FOLDER / "model.safetensors", framework="numpy") as opened:
    CONFIGS: dict[str, dict[str, Any]] = {name: json.loads(config) for name, config in opened.metadata().items()}
# Half a unit in the last place of the type that the library computes in; bitsandbytes multiplies rounded factors.
ROUNDING = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-22}


def test_every_library_has_its_cases() -> None:
    assert {name.split("-")[0] for name in CONFIGS} == {"pack", "int", "float", "nf4", "fp4", "bnb", "mlx"}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_numbers_are_those_of_the_library(name: str) -> None:
    config = CONFIGS[name]
    key = "quantization" if name.startswith("mlx") else "quantization_config"
    method = find_method(Config({"model_type": "llama", key: config}), Path("none"))
    assert method is not None
    prefix = f"{name}."
    tensors = {one.removeprefix(prefix): tensor for one, tensor in stored_tensors(FOLDER).items() if one.startswith(prefix)}
    expected = tensors.pop("expected")
    files = MappedFiles()
    [(module, matrix)] = method(tensors).items()
    assert (module, matrix.shape) == ("m.weight", expected.shape)
    found, wanted = files.array(matrix), files.floats(expected)
    assert np.abs(wanted).max() > 1
    assert (np.abs(found - wanted) <= ROUNDING[expected.dtype] * np.abs(wanted)).all(), np.abs(found - wanted).max()
    if matrix.packed is not None and matrix.packed.panel_bits is not None:
        assert_panel_holds(matrix.packed.panel(files), matrix.packed.panel_bits, found)


def assert_panel_holds(panel: Any, bits: int, numbers: np.ndarray) -> None:
    """The integers of a panel times their scales are the numbers."""
    narrow, scales = panel
    words = narrow.convert(narrow.rows)
    integers = (words[:, :, None] >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32(2**bits - 1)).reshape(len(words), -1)
    signed = integers.astype(np.float32) - 2.0 ** (bits - 1)
    np.testing.assert_array_equal(signed * np.repeat(scales, numbers.shape[1] // scales.shape[1], axis=1), numbers)
