"""Averages of the weights of two models."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.storyteller import average


def folder(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    path.mkdir()
    for name in average.BESIDE:
        (path / name).write_text(f"{name} of {path.name}", "utf-8")
    save_file(weights, path / average.WEIGHTS)
    return path


def test_the_average_lies_between_and_keeps_the_number_format_and_the_files_of_the_first(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {"w": torch.tensor([0.0, 4.0], dtype=torch.bfloat16)})
    two = folder(tmp_path / "two", {"w": torch.tensor([1.0, 8.0], dtype=torch.bfloat16)})
    assert average.main([str(one), str(two), "--share", "0.25", "-o", str(tmp_path / "out")]) == 0
    weights = load_file(tmp_path / "out" / average.WEIGHTS)["w"]
    assert weights.dtype == torch.bfloat16 and weights.tolist() == [0.25, 5.0]
    assert (tmp_path / "out" / "config.json").read_text("utf-8") == "config.json of one"


def test_models_of_other_shapes_are_refused(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", {"w": torch.zeros(2)}), folder(tmp_path / "two", {"w": torch.zeros(3)})
    with pytest.raises(SystemExit, match="2"):
        average.main([str(one), str(two), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
