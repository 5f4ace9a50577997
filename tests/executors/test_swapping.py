"""Every matrix of a model may be swapped for one of another kind, and a tied head is one parameter with the embedding."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.conftest import GOLDENS, golden_model
from tests.executors.test_parity import TOLERANCE, difference, full, one_text
from tgen.executors.torch.reading import step_bytes
from tgen.executors.torch.transformer import Transformer


class Swapped(torch.nn.Module):
    """A matrix in another form."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.columns, self.added = linear.weight.T.clone(), linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = x @ self.columns
        return product if self.added is None else product + self.added


class SwappedTable(torch.nn.Module):
    """An embedding in another form."""

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        self.columns = embedding.weight.T.clone()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.columns.T[ids]


@torch.inference_mode()
@pytest.mark.parametrize("name", GOLDENS)
def test_every_matrix_may_be_swapped(name: str) -> None:
    """The head's matrix and the embedding may be swapped too: the model still knows its device."""
    texts, model = one_text(name), copy.deepcopy(golden_model(name))
    for path, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            model.set_submodule(path, Swapped(module))
    model.set_submodule("embedding", SwappedTable(model.embedding))
    left = [parameter for parameter, tensor in model.named_parameters() if tensor.ndim == 2]
    assert not [
        parameter
        for parameter in left
        if not parameter.endswith(
            (
                "positions.weight",
                "types.weight",
                "bias.weight",
                "distances.weight",
                "relative.weight",
                "window.weight",
                "table.weight",
                "decay",
            )
        )
    ]
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert step_bytes(model, 1) > 0
    assert difference(full(model, texts)[0], texts.logits) < TOLERANCE


def test_a_tied_head_learns_with_the_embedding() -> None:
    """The two are one parameter after loading, after a copy, and after `load_state_dict`."""
    tied = [name for name in GOLDENS if (head := golden_model(name).spec.head) is not None and head.tied]
    assert len(tied) > 3
    for name in tied:
        model = copy.deepcopy(golden_model(name))
        assert model.head is not None
        assert golden_model(name).head.out.weight is golden_model(name).embedding.weight  # type: ignore[union-attr]
        assert model.head.out.weight is model.embedding.weight
        other = Transformer(model.spec)
        other.load_state_dict(model.state_dict(), assign=True)
        assert other.head is not None
        assert other.head.out.weight is other.embedding.weight


def test_a_model_says_where_it_runs() -> None:
    model = Transformer(golden_model("gpt2").spec)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    model = model.to("meta", torch.float16)
    assert (model.device.type, model.dtype) == ("meta", torch.float16)
