"""Muon: its directions, its step, which parameters it takes, and that its state can be stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tgen.train.optimisers.muon import Muon, orthogonalised
from tgen.train.optimisers.optimiser import make_optimiser


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 24), (2, 24, 6)])
def test_directions_have_singular_values_near_one_and_the_same_singular_vectors(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(matrices)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3 and values.max() < 1.25
    for matrix, direction in zip(matrices, found, strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.mT @ direction @ v.mT
        torch.testing.assert_close(inner - torch.diag(inner.diag()), torch.zeros_like(inner), atol=1e-4, rtol=0)
        assert (inner.diag() > 0).all()


def test_a_step_is_the_direction_in_the_size_of_adams_and_decay() -> None:
    matrix = nn.Parameter(torch.ones(4, 16))
    matrix.grad = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    optimiser = Muon([matrix], weight_decay=0.5)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    momentum = 0.05 * matrix.grad
    direction = orthogonalised((0.05 * matrix.grad + 0.95 * momentum)[None])[0]
    torch.testing.assert_close(matrix.detach(), 0.95 * torch.ones(4, 16) - 0.1 * 0.2 * 4 * direction)
    torch.testing.assert_close(optimiser.state[matrix]["momentum"], momentum)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.decoder = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)])})

    @property
    def layer(self) -> nn.Linear:
        return self.decoder.get_submodule("layers.0")  # type: ignore[return-value]


def test_muon_takes_the_matrices_of_the_layers_and_adam_the_rest() -> None:
    model = Model()
    adam, muon = make_optimiser(model, 0.1).parts
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(model.layer.weight)]
    assert {id(p) for group in adam.param_groups for p in group["params"]} == {id(model.embedding.weight), id(model.layer.bias)}


def test_a_restored_optimiser_goes_on_as_it_would_have() -> None:
    ends = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = Model()
        optimiser = make_optimiser(model, 0.1)
        for step in range(4):
            if interrupted and step == 2:
                state = optimiser.state_dict()
                optimiser = make_optimiser(model, 0.1)
                optimiser.load_state_dict(state)
            for group in optimiser.param_groups:
                group["lr"] = 0.01
            model.layer(model.embedding(torch.arange(5))).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def test_the_state_of_another_optimiser_is_refused() -> None:
    model = Model()
    alone = torch.optim.AdamW(model.parameters()).state_dict()
    for other, words in ((alone, "not states of several"), ([alone, alone], "different number of parameter groups")):
        with pytest.raises(ValueError, match=words):
            make_optimiser(model, 0.1).load_state_dict(other)  # type: ignore[arg-type]
