"""A folder whose head belongs to a task without a command says what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.damage import edit
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import UnsupportedError


@pytest.mark.parametrize(
    ("name", "head", "architectures", "words"),
    [
        ("roberta", "classifier.weight", ["BertForSequenceClassification"], "BertForSequenceClassification sorts or scores whole texts"),
        ("roberta", "classifier.bias", ["BertForTokenClassification"], "BertForTokenClassification labels tokens"),
        ("distilbert", "qa_outputs.weight", None, "the model with the head qa_outputs marks an answer"),
        ("qwen3", "score.weight", ["Qwen3ForSequenceClassification"], "Qwen3ForSequenceClassification sorts or scores"),
    ],
)
def test_a_head_of_another_task_is_named(
    name: str, head: str, architectures: list[str] | None, words: str, copy_golden: Callable[[str], Path]
) -> None:
    """In one line, with the hint that no command is for it."""
    folder = copy_golden(name)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, head: torch.ones(2, 16)}, folder / "model.safetensors")
    edit(folder / "config.json", architectures=architectures)
    with pytest.raises(UnsupportedError, match=words) as caught:
        open_checkpoint(folder)
    assert "\n" not in caught.value.message and "it writes no text" in caught.value.message
    assert caught.value.hint is not None and "tgen has no command for it" in caught.value.hint
