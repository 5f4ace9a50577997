"""The settings of an adapter, checked on creation, and the defaults that differ from those of a run from random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tgen.errors import UsageError

MOST_RANK = 4096
# Only few numbers learn, and they begin at zero; each token needs a pass through a large model.
DEFAULTS: dict[str, Any] = {"learning_rate": 3e-4, "batch": 4, "weight_decay": 0.0}
SEQUENCE = 256
RANK = 16


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The name of the base model, as --model takes it; the rank of the changes; and alpha: changes are multiplied by alpha / rank."""

    base: str
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST_RANK:
            raise UsageError(f"--rank must be 1 to {MOST_RANK}, not {self.rank}", "8 to 64 are usual")
        if not 0 < self.alpha < math.inf:
            raise UsageError(f"--alpha must be above 0, not {self.alpha:g}", "leave it out for twice the rank")
