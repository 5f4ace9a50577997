"""Whether the random weights of a mixture of experts make a good golden."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def is_clear(model: PreTrainedModel, run: Callable[[PreTrainedModel], object], length: int) -> bool:
    """Whether the texts of `run` go through the same experts in bfloat16 and with other roundings, and one of `length` through all.

    Else a parameter would not show, or the error of bfloat16 would be one of choices, and so one of chance.
    """
    near, random = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for parameter in near.parameters():
        parameter.mul_(1 + 0.004 * torch.randn(parameter.shape, generator=random))
    found = [_taken(one, run) for one in (model, near, copy.deepcopy(model).bfloat16())]
    for (count, exact, weights), (_, rounded, others) in [*zip(found[0], found[1], strict=True), *zip(found[0], found[2], strict=True)]:
        orders = exact.argsort(-1), rounded.argsort(-1)
        if not torch.equal(exact.gather(-1, orders[0]), rounded.gather(-1, orders[1])):
            return False
        if (weights.gather(-1, orders[0]) - others.float().gather(-1, orders[1])).abs().max() > 0.05:
            return False
        if len(exact) == length and len(exact.unique()) < count:
            return False
    return True


def _taken(model: PreTrainedModel, run: Callable[[PreTrainedModel], object]) -> list[tuple[Any, ...]]:
    """How many experts there are, which ones each token takes and with which weights, in every layer of every pass."""
    taken: list[tuple[Any, ...]] = []
    parts = [part for part in model.modules() if type(part).__name__.endswith("Experts")]
    hooks = [part.register_forward_pre_hook(lambda part, given: taken.append((part.num_experts, *given[1:]))) for part in parts]
    if parts:
        run(model)
    for hook in hooks:
        hook.remove()
    return taken
