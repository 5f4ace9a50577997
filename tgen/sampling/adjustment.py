"""What changes a row's scores before the filters: its penalties, then its rules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

from tgen.arrays import Logits
from tgen.options import GenerationOptions
from tgen.sampling.penalties import Penalties
from tgen.sampling.rules import RowRules, Rules


class Adjustment:
    """The penalties and the rules of one row, or of one beam. It remembers the ids, so that a step costs the same after a long text."""

    def __init__(self, options: GenerationOptions, rules: Rules | None, prompt: Sequence[int]) -> None:
        self._penalties = Penalties(options, prompt)
        self._rules = RowRules(rules, prompt) if rules is not None and not rules.empty else None

    def apply(self, logits: Logits) -> tuple[Logits, Logits]:
        """The scores [vocab] after the penalties, and after the rules too. Raises TgenError if the rules forbid every token."""
        penalised = self._penalties.apply(logits)
        return penalised, penalised if self._rules is None else self._rules.apply(penalised)

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
        self._penalties.take(token)
        if self._rules is not None:
            self._rules.take(token)

    def copy(self) -> Self:
        """The same row; what one of the two takes later does not change the other."""
        copied = copy.copy(self)
        copied._penalties = self._penalties.copy()
        copied._rules = None if self._rules is None else self._rules.copy()
        return copied
