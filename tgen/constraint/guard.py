"""A guard watches over one sample: it says which tokens may come next so that the text stays valid and can still be closed in time.

At every step the guard holds a plan, a known way to the end that fits the rest of the token budget. It lets a token through
only if it finds a plan that fits after that token, too, so every text is closed in time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tgen.constraint.grammar import Grammar, Matcher, Vocabulary, byte_vocabulary
from tgen.constraint.place import Place
from tgen.constraint.planner import EMPTY, NODE, Effort, Plan, Planner, Search
from tgen.constraint.spelling import UNSPELLABLE, Spelling
from tgen.errors import UsageError
from tgen.values import Constraint

# The most that a search may cost: at the start, where a few seconds are better than a refusal, and at a step, where a user waits.
START, STEP = Effort(40_000, 2_000, 5.0), Effort(600, 200)
# Each sample has a search budget, in nodes: SAVED at the start, topped up by EARNED with every token, capped at SAVED. It pays for
# searches for a cheaper plan, which mostly find nothing. A search for any plan at all needs no budget.
EARNED, SAVED = 8, 600
# Up to this many bytes of a plan may be replaced by a token before the guard searches for another plan: most tokens are shorter.
MOST_REPLACED = 8
# How many constraints stay compiled: the lines of a batch mostly share a few.
KEPT = 16
# Numbers stay so short that a validator reads them exactly: it takes 0.99999999999999999999 for 1. Whole numbers may be longer.
LONGEST_FRACTION, LONGEST_WHOLE = 17, 40


@dataclass(frozen=True, slots=True)
class _State:
    """A text so far: both matchers, the place in JSON, and the plan."""

    tokens: Matcher
    bytes: Matcher
    place: Place
    plan: Plan

    def copy(self) -> _State:
        return _State(self.tokens.copy(), self.bytes.copy(), self.place, self.plan)


class Guard:
    """The constraint of one sample, and how far its text has come. Each guard belongs to one thread at a time."""

    def __init__(self, planner: Planner, ends: Sequence[int], state: _State, left: int, saved: int = SAVED) -> None:
        """`left` is how many tokens may follow."""
        self._planner = planner
        self._spelling = planner.spelling
        self._ends = list(ends)
        self._state = state
        self._left = left
        self._saved = saved
        self._vain = 0  # how many searches at this step found nothing
        self._next: tuple[int, _State] | None = None

    def copy(self) -> Guard:
        """A guard for another sample that goes on from here."""
        return Guard(self._planner, self._ends, self._state.copy(), self._left, self._saved)

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow it, because the grammar or the budget ends here."""
        return not self._state.plan.text and (self._left == 0 or self._state.bytes.stopped)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens the grammar allows next, [vocab]; end tokens where the text may end."""
        mask = self._state.tokens.allowed()
        mask[self._ends] = not self._state.plan.text
        if not mask.any():  # the library has reached one of its limits, so the guard follows its plan from here on
            mask[self.safe()] = True
        return mask

    def admits(self, token: int) -> bool:
        """Whether the text can still be closed in time after an allowed token."""
        if token in self._ends:
            return True
        if self._left < 1:
            return False
        text, state = self._spelling.tokens[token], self._state
        place = state.place.after(text)
        planned = state.plan.text.startswith(text) and bool(text)
        if not planned and place.number > (LONGEST_FRACTION if place.point else LONGEST_WHOLE):
            return False
        matcher = state.bytes.copy()
        if not matcher.take(text):
            if not planned:
                return False
            matcher = state.bytes
        plan = self._plan(matcher, place, text)
        if plan is None or plan.cost > self._left - 1:
            return False
        self._next = (token, _State(state.tokens, matcher, place, plan))
        return True

    def safe(self) -> int:
        """A token that is always right: the plan's first, or an end token where the plan is empty."""
        plan = self._state.plan
        return self._spelling.first(plan.text, plan.costs) if plan.text else self._ends[0]

    def take(self, token: int) -> None:
        """Go on by a token that was admitted or is safe."""
        self._left -= 1
        self._saved, self._vain = min(self._saved + EARNED, SAVED), 0
        if token in self._ends:
            return
        if self._next is None or self._next[0] != token:
            text = self._spelling.tokens[token]
            matcher = self._state.bytes.copy()
            matcher.take(text)
            plan = EMPTY if matcher.accepting else self._state.plan.rest(len(text))
            self._next = (token, _State(self._state.tokens, matcher, self._state.place.after(text), plan))
        self._state, self._next = self._next[1], None
        self._state.tokens.take([token])

    def _plan(self, matcher: Matcher, place: Place, text: bytes) -> Plan | None:
        """A plan for the text that goes on with `text`; it fits the budget if the guard can find one that does."""
        old, budget = self._state.plan, self._left - 1
        if matcher.accepting:
            return EMPTY
        # Mostly the token is the plan's own, or it replaces some first bytes of the plan: as many as the token has, none, or a few.
        # Then the rest of the plan is a plan.
        if old.text.startswith(text):
            known, true = old.rest(len(text)), True
        else:
            starts = dict.fromkeys((len(text), 0, *range(1, MOST_REPLACED + 1)))
            asked = (start for start in starts if start <= len(old.text) and (start in (0, len(text)) or old.costs[start] <= budget))
            found = next((start for start in asked if matcher.ends(old.text[start:])), None)
            known, true = old.rest(found or 0), found is not None
        if true and known.cost <= budget:
            return known
        return self._search(matcher, place, known, true)

    def _search(self, matcher: Matcher, place: Place, known: Plan, true: bool) -> Plan | None:
        """The plan that a search finds. If `known` is a `true` plan, it is the result once the sample's search budget is used up."""
        if true and self._saved <= 0:
            return known
        cheaper = min(STEP.cheaper, max(self._saved, 0))
        nodes = max(STEP.nodes >> self._vain, 1)
        search = Search(self._planner, known)
        plan = search.plan(matcher, place, self._left - 1, Effort(nodes, cheaper), known if true else None)
        self._vain += plan is None
        if plan is not None and plan.cost > self._left - 1:
            self._saved -= min(search.work // NODE, cheaper)
        return plan


class _Start:
    """A constraint compiled for a model: the state of an empty text, and plans for it. All token budgets share it."""

    def __init__(self, constraint: Constraint, space: bool, vocabulary: Vocabulary, alphabet: Vocabulary, spelling: Spelling) -> None:
        grammar = Grammar(constraint, space=space)
        self.constraint = constraint
        self.planner = Planner(spelling, grammar.names, grammar.examples, is_json=constraint.kind == "json-schema")
        place = Place(json=self.planner.is_json)
        tokens, matcher = grammar.matcher(vocabulary), grammar.matcher(alphabet)
        texts = [(" " * space + text).encode() for text in grammar.choices]
        choices = [Plan(text, tuple(spelling.costs(text))) for text in texts]
        quick = min(choices, key=lambda plan: plan.cost) if choices else Search(self.planner).straight(matcher, place)
        self.quick, self.exact = quick, bool(choices)
        self.state = _State(tokens, matcher, place, quick or EMPTY)

    def plan(self, budget: int) -> Plan:
        """A plan that fits a budget. Raises UsageError if there is none.

        Which plan it is depends on the budget alone, so that a text does not depend on earlier requests.
        """
        quick = self.quick
        # With twice the room that a plan needs, a cheaper plan would hardly change the text.
        if quick is not None and (self.exact or 2 * quick.cost <= budget):
            plan: Plan | None = quick
        else:
            plan = self._cheapest
        flag = self.constraint.flag
        if plan is None or plan.cost >= UNSPELLABLE:
            reason = "this model's vocabulary cannot spell" if plan else "no end was found for"
            raise UsageError(f"{flag}: {reason} any text that satisfies it", "change a part that may have no end")
        if plan.cost > budget:
            raise UsageError(
                f"{flag} needs at least {plan.cost} new tokens, --max-new-tokens is {budget}",
                f"use --max-new-tokens {plan.cost} or more, and a prompt that leaves room for them",
            )
        return plan

    @functools.cached_property
    def _cheapest(self) -> Plan | None:
        state = self.state
        return Search(self.planner, state.plan).plan(state.bytes, state.place, 0, START, self.quick)


class Guards:
    """Makes the guards for a model. Any thread may ask for one."""

    def __init__(self, spelling: Spelling, ends: frozenset[int]) -> None:
        """Raises UsageError for a model that has no end token."""
        if not ends:
            raise UsageError("constrained output needs an end token, and this model has none", "name it in config.json: eos_token_id")
        self._ends = sorted(end for end in ends if end < len(spelling.tokens))
        self._loses_space = spelling.loses_space
        silent = [b"" if token in ends else text for token, text in enumerate(spelling.tokens)]
        # Two threads that ask at once for the same new constraint both compile it; one of the two results is kept.
        compiled = functools.partial(_Start, vocabulary=Vocabulary(silent), alphabet=byte_vocabulary(), spelling=Spelling(silent))
        self._start = functools.lru_cache(maxsize=KEPT)(compiled)

    def guard(self, constraint: Constraint, prompt: Sequence[int], budget: int) -> Guard:
        """The guard of a sample that continues a prompt by `budget` tokens at most.

        Raises UsageError for a constraint that cannot be honoured, or not within the budget.
        """
        start = self._start(constraint, self._loses_space(prompt))
        state = start.state.copy()
        return Guard(start.planner, self._ends, _State(state.tokens, state.bytes, state.place, start.plan(budget)), budget)
