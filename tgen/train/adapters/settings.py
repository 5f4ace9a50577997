"""The settings of an adapter, checked on creation, and what a run that trains one does otherwise than a run from random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tgen.errors import UsageError

MOST_RANK = 4096
# Few numbers learn, all from nothing, and each token costs a pass through a large model.
DEFAULTS: dict[str, Any] = {"learning_rate": 3e-4, "batch": 4, "weight_decay": 0.0}
SEQUENCE = 256
RANK = 16


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The model that an adapter is for, as --model takes it; how many columns its matrices have; and alpha / rank is their scale."""

    base: str
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST_RANK:
            raise UsageError(f"--rank must be 1 to {MOST_RANK}, not {self.rank}", "8 to 64 are usual")
        if not 0 < self.alpha < math.inf:
            raise UsageError(f"--alpha must be above 0, not {self.alpha:g}", "leave it out for twice the rank")
