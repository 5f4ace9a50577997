"""The measures of a text that a model has read. This module imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the scored tokens of a text: log-probability in nats, number of tokens, and the bytes of text that they stand for."""

    log_probability: float
    tokens: int
    size: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability per token; depends on the vocabulary."""
        return math.exp(min(-self.log_probability / self.tokens, 700.0)) if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Negative log-probability in bits over bytes of text; compares across vocabularies."""
        return -self.log_probability / math.log(2) / self.size if self.size else math.nan
