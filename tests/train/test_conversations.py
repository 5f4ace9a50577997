"""Conversations to learn from: a model is trained on the very text that its folder's chat template asks it to go on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tgen.errors import UsageError
from tgen.text.chat import Message, find_template
from tgen.text.tokenizer import Tokenizer
from tgen.train.base_model import BaseModel
from tgen.train.settings import TrainSettings
from tgen.train.trainer import Trainer
from tgen.train.vocabulary import ASSISTANT, END, USER
from tgen.train.workspace import Workspace

TALK = [
    Message("user", "Tell me about a fox."),
    Message("assistant", "A fox sat.\nIt ran."),
    Message("user", "Who ran?"),
    Message("assistant", "The fox."),
]
LINE = json.dumps({"messages": [{"role": message.role, "content": message.content} for message in TALK]})


@pytest.fixture
def talks(tmp_path: Path) -> str:
    path = tmp_path / "talks.jsonl"
    path.write_text(f"{LINE}\n" * 200, "utf-8")
    return str(path)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    path = tmp_path / "plain.txt"
    path.write_text("A fox sat. It ran and ran.\n" * 400, "utf-8")
    return str(path)


def trained(folder: Path, text: str, base: BaseModel | None = None) -> Workspace:
    workspace = Workspace(folder)
    workspace.create([text], TrainSettings(width=64, layers=1, vocab=300, context=32, steps=1), base=base)
    for _ in Trainer(workspace, torch.device("cpu"), compiled=False).run():
        pass
    return workspace


def test_the_template_asks_for_what_training_showed(tmp_path: Path, talks: str) -> None:
    workspace = trained(tmp_path / "model", talks)
    tokenizer, template = Tokenizer.load(tmp_path / "model"), find_template(tmp_path / "model")
    assert template is not None
    end, user, assistant = (tokenizer.id_of(piece) for piece in (END, USER, ASSISTANT))
    learned = np.load(workspace.inner / "train.npy").tolist()
    conversation = [end, *learned[: learned.index(end, learned.index(end) + 1) + 1]]
    assert [token for token in conversation if token in (end, user, assistant)] == [end, user, assistant, end, user, assistant, end]
    for turns in (1, 3):
        [asked] = template.encode(tokenizer, TALK[:turns])
        assert asked == conversation[: len(asked)]
        assert asked[-1] == assistant
        answer = conversation[len(asked) : conversation.index(end, len(asked))]
        assert tokenizer.decode(answer) == TALK[turns].content


def test_a_model_of_texts_has_no_template(tmp_path: Path, plain: str) -> None:
    trained(tmp_path / "model", plain)
    assert find_template(tmp_path / "model") is None


def test_a_base_without_the_tokens_is_refused(tmp_path: Path, plain: str, talks: str) -> None:
    trained(tmp_path / "base", plain)
    with pytest.raises(UsageError, match="no tokens for conversations"):
        trained(tmp_path / "model", talks, BaseModel(tmp_path / "base"))
