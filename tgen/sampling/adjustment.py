"""What changes a row's scores before the filters: its biases, its penalties, then its rules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

from tgen.arrays import Logits
from tgen.options import GenerationOptions
from tgen.sampling.dry import Dry
from tgen.sampling.penalties import Penalties
from tgen.sampling.rules import RowRules, Rules
from tgen.sampling.wording import Wording


class Adjustment:
    """The biases, penalties and rules of one row, or of one beam. It remembers the ids, so that a step costs the same after a long text."""

    def __init__(self, options: GenerationOptions, rules: Rules | None, prompt: Sequence[int], wording: Wording | None = None) -> None:
        self._penalties = Penalties(options, prompt, wording)
        self._dry = Dry(options, prompt, wording.breakers if wording else None) if options.dry_multiplier else None
        self._rules = RowRules(rules, prompt) if rules is not None and not rules.empty else None

    def apply(self, logits: Logits) -> tuple[Logits, Logits]:
        """The scores [vocab] after the penalties, and after the rules too. Raises TgenError if the rules forbid every token."""
        penalised = self._penalties.apply(logits)
        if self._dry is not None:
            penalised = self._dry.apply(penalised)
        return penalised, penalised if self._rules is None else self._rules.apply(penalised)

    def take(self, token: int) -> None:
        """Remember that the row was continued with this token."""
        self._penalties.take(token)
        for part in (self._dry, self._rules):
            if part is not None:
                part.take(token)

    def copy(self) -> Self:
        """An independent copy of the row's adjustment."""
        copied = copy.copy(self)
        copied._penalties = self._penalties.copy()
        copied._dry = None if self._dry is None else self._dry.copy()
        copied._rules = None if self._rules is None else self._rules.copy()
        return copied
