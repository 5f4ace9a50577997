"""An adapter in training: what is written is what the run computed, and a run that was cut ends as one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import GOLDEN
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import UnsupportedError, UsageError
from tgen.executors.torch.load import load_model
from tgen.executors.torch.transformer import Transformer
from tgen.train.adapters.base import Base
from tgen.train.adapters.files import write_adapter
from tgen.train.adapters.low_rank import others, places, put_changes
from tgen.train.adapters.settings import AdapterSettings
from tgen.train.adapters.trainer import AdapterTrainer
from tgen.train.adapters.workspace import AdapterWorkspace
from tgen.train.settings import TrainSettings

CPU = torch.device("cpu")


@torch.no_grad()
def logits(model: Transformer) -> np.ndarray:
    return model.logits(model(torch.arange(3, 15)[None])).numpy()


@pytest.mark.parametrize("name", ["llama3", "phi3", "falcon_grouped", "gpt2", "qwen3_next", "cohere", "gemma3_images", "minicpm3"])
def test_what_is_written_is_what_was_computed(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / name)
    model = load_model(checkpoint, CPU, torch.float32)
    before, at = logits(model), places(checkpoint, model)
    changes = put_changes(model, at, 3, 5.0, seed=1)
    assert (logits(model) == before).all()  # it begins as nothing
    for parameter in changes.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = logits(model)
    assert np.abs(expected - before).max() > 0.01 * np.abs(before).max()
    write_adapter(tmp_path, AdapterSettings(str(GOLDEN / name), 3, 5.0), changes, at, others(checkpoint, at))
    found = logits(load_model(open_checkpoint(tmp_path), CPU, torch.float32))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_model_without_such_matrices_is_refused() -> None:
    checkpoint = open_checkpoint(GOLDEN / "mamba")
    with pytest.raises(UnsupportedError, match="mamba has no matrix that an adapter can change"):
        places(checkpoint, load_model(checkpoint, CPU, torch.float32))


def run(folder: Path, *cuts: int) -> dict[str, torch.Tensor]:
    """The adapter of a run of four steps that ends at these steps and goes on."""
    text, workspace, base = folder / "text.txt", AdapterWorkspace(folder / "out"), Base(str(GOLDEN / "llama3"))
    folder.mkdir()
    text.write_text("the fox saw the old king and the wolf went to the river " * 30)
    settings = TrainSettings(steps=4, batch=2, sequence=8, validation=0.2, learning_rate=0.01)
    workspace.begin([str(text)], base.settings(settings), None, base, AdapterSettings(str(GOLDEN / "llama3"), 2, 4.0))
    for cut in (*cuts, 4):
        trainer = AdapterTrainer(workspace, CPU, compiled=False)
        trainer.dtype = torch.float32
        for _ in trainer.run(lambda trainer=trainer, cut=cut: trainer.step >= cut):  # type: ignore[misc]
            pass
    return load_file(workspace.folder / "adapter_model.safetensors")


def test_a_run_that_was_cut_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut", 1, 3)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert all(bool(tensor.any()) for tensor in whole.values())


def test_held_back_files_without_text_are_an_error_of_the_user(tmp_path: Path) -> None:
    text, empty, base = tmp_path / "text.txt", tmp_path / "empty.txt", Base(str(GOLDEN / "llama3"))
    text.write_text("the fox saw the old king and the wolf went to the river " * 30)
    empty.write_text(" \n")
    settings = base.settings(TrainSettings(steps=4, batch=2, sequence=8, validation=0.2))
    with pytest.raises(UsageError, match="the validation text has 0 tokens, too few"):
        AdapterWorkspace(tmp_path / "out").begin([str(text)], settings, [str(empty)], base, AdapterSettings(str(GOLDEN / "llama3"), 2, 4.0))
