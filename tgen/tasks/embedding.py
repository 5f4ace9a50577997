"""Makes one vector of a text from the hidden states of its tokens, with the poolings, matrices and norms of `Steps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tgen.executors.session import LoadedModel
from tgen.options import Pooling
from tgen.sampling.logits import require_finite

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix [outputs, inputs] with a bias, and the function after it."""

    weight: Floats
    bias: Floats | None = None
    activation: Literal["tanh", "relu", "identity"] = "identity"

    def __call__(self, vector: Floats) -> Floats:
        """The vector [outputs] for one [inputs]."""
        product: Floats = self.weight @ vector
        product = product if self.bias is None else product + self.bias
        match self.activation:
            case "tanh":
                return np.tanh(product)
            case "relu":
                return np.maximum(product, np.float32(0))
            case "identity":
                return product


def normalized(vector: Floats) -> Floats:
    """The vector with length 1; zeros stay zeros."""
    return vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))


@dataclass(frozen=True, slots=True)
class Steps:
    """How a text's vector is made: the results of the poolings, side by side, then matrices and norms in their order.

    The tokens of a prompt before the text count only if `include_prompt`, except for the poolings "first" and "last".
    """

    poolings: tuple[Pooling, ...] = ("mean",)
    then: tuple[Dense | Literal["normalize"], ...] = ()
    include_prompt: bool = True

    def with_length(self, one: bool | None) -> Steps:
        """The steps with or without a norm to length 1 at their end; None leaves the steps as they are."""
        if one is None:
            return self
        kept = tuple(step for step in self.then if step != "normalize")
        return Steps(self.poolings, (*kept, "normalize") if one else kept, self.include_prompt)

    def vector(self, states: Floats, prompt: int = 0) -> Floats:
        """The vector [size] of states [n, width]; the first `prompt` tokens are the prompt's. Without tokens, it is zeros.

        Raises NumericalError for numbers that are not finite.
        """
        require_finite(states, "in a vector")
        if not len(states):
            outputs = [len(step.weight) for step in self.then if isinstance(step, Dense)]
            return np.zeros(outputs[-1] if outputs else states.shape[1] * len(self.poolings), dtype=np.float32)
        own = states if self.include_prompt else states[min(prompt, len(states) - 1) :]
        vector = np.concatenate([pool(states if one in ("first", "last") else own, one) for one in self.poolings])
        for step in self.then:
            vector = normalized(vector) if step == "normalize" else step(vector)
        return vector


def pool(states: Floats, pooling: Pooling) -> Floats:
    """One vector [width] of states [n, width]. The weighted mean counts later tokens more: the n-th token n times."""
    match pooling:
        case "mean":
            found: Floats = states.mean(axis=0, dtype=np.float32)
        case "first":
            found = states[0]
        case "last":
            found = states[-1]
        case "max":
            found = states.max(axis=0)
        case "sqrt":
            found = states.sum(axis=0, dtype=np.float32) / np.float32(len(states) ** 0.5)
        case "weighted":
            weights = np.arange(1, len(states) + 1, dtype=np.float32)
            found = weights @ states / weights.sum()
    return found


def hidden_states(model: LoadedModel, rows: Sequence[Sequence[int]], width: int) -> list[Floats]:
    """The last hidden states of each row of ids, [n, width], all read in one pass; [0, width] for a row without ids."""
    found = iter(model.encode([row for row in rows if row]))
    return [next(found) if row else np.zeros((0, width), dtype=np.float32) for row in rows]
