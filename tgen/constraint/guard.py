"""A constraint at work on one sample: which tokens may come next so that the text stays valid and can still be closed in time.

Knows token ids, grammars and plans; no logits, no session. At every step there is a plan, a known way to the end that fits what is left
of the budget. A token is let through only if there is a plan after it, too, so the text is closed by construction.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tgen.constraint.grammar import Grammar, Matcher, Vocabulary, byte_vocabulary
from tgen.constraint.planner import NODE, Effort, Place, Plan, Planner
from tgen.constraint.spelling import UNSPELLABLE, Spelling
from tgen.constraints import Constraint
from tgen.errors import UsageError

# At the start, where there is time, and at a step: in nodes.
START, STEP = Effort(40_000, 4_000, 400, 5.0), Effort(600, 200)
# A plan that costs too much is nearly always the cheapest already. So what a sample may spend on a search for a cheaper one is limited: so
# much for one search, so much earned by each token, and no more than so much saved. A search for any plan is always made.
TIGHT, EARNED, SAVED = 48, 8, 600
# How many bytes of a plan a token may stand for, where it is not its own number of bytes.
MOST_REPLACED = 8
KEPT = 16
# Numbers stay as short as a float is exact: a validator reads 0.99999999999999999999 as 1. Whole numbers are exact for longer.
LONGEST_FRACTION, LONGEST_WHOLE = 17, 40


@dataclass(frozen=True, slots=True)
class _State:
    """A text: where both matchers are, where in JSON, and a plan."""

    tokens: Matcher
    bytes: Matcher
    place: Place
    plan: Plan


class Guard:
    """Watches over one sample."""

    def __init__(self, spelling: Spelling, planner: Planner, ends: Sequence[int], state: _State, budget: int, saved: int = SAVED) -> None:
        self._spelling = spelling
        self._planner = planner
        self._ends = list(ends)
        self._state = state
        self._left = budget
        self._saved = saved
        self._vain = 0  # searches at this step that found nothing
        self._next: tuple[int, _State] | None = None

    def copy(self) -> Guard:
        """The same for another sample."""
        state = _State(self._state.tokens.copy(), self._state.bytes.copy(), self._state.place, self._state.plan)
        return Guard(self._spelling, self._planner, self._ends, state, self._left, self._saved)

    @property
    def finished(self) -> bool:
        """Whether the text is complete and nothing may follow it, be it that nothing fits the grammar or the budget."""
        return not self._state.plan.text and (self._left == 0 or self._state.bytes.stopped)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens the grammar allows next, [vocab]; end tokens where the text may end."""
        mask = self._state.tokens.allowed()
        mask[self._ends] = not self._state.plan.text
        if not mask.any():  # the library has reached one of its limits: from here on the plan is all there is
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
        following = state.plan.text.startswith(text) and bool(text)
        if not following and place.number > (LONGEST_FRACTION if place.point else LONGEST_WHOLE):
            return False
        matcher = state.bytes.copy()
        if not matcher.take(text):
            if not following:
                return False
            matcher = state.bytes
        plan = self._plan(matcher, place, text)
        if plan is None or plan.cost > self._left - 1:
            return False
        self._next = (token, _State(state.tokens, matcher, place, plan))
        return True

    def safe(self) -> int:
        """A token that is always right: the plan's first, or an end token where nothing is left to write."""
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
            plan = Plan() if matcher.accepting else self._state.plan.rest(len(text))
            self._next = (token, _State(self._state.tokens, matcher, self._state.place.after(text), plan))
        self._state, self._next = self._next[1], None
        self._state.tokens.take([token])

    def _plan(self, matcher: Matcher, place: Place, text: bytes) -> Plan | None:
        """A plan for the text that goes on with `text`, within the budget if one can be found."""
        old, budget = self._state.plan, self._left - 1
        if matcher.accepting:
            return Plan()
        # Mostly the token is the plan's own, or in the place of as many of its bytes, or goes between what is there and the plan, or is in
        # the place of fewer or more. What is left of the plan then needs no search.
        if old.text.startswith(text):
            known, true = old.rest(len(text)), True
        else:
            starts = (len(text), 0, *range(1, min(len(text), MOST_REPLACED)), len(text) + 1)
            asked = (start for start in starts if start <= len(old.text) and (start in (0, len(text)) or old.costs[start] <= budget))
            found = next((start for start in asked if matcher.ends(old.text[start:])), None)
            known, true = old.rest(found or 0), found is not None
        if true and known.cost <= budget:
            return known
        return self._search(matcher, place, known, true)

    def _search(self, matcher: Matcher, place: Place, known: Plan, true: bool) -> Plan | None:
        """What a search finds from here, or the known plan if that is true and nothing may be spent on another."""
        if true and self._saved <= 0:
            return known
        cheaper = min(TIGHT if true else STEP.cheaper, max(self._saved, 0))
        nodes = cheaper if true else max(STEP.nodes >> self._vain, 1)
        plan = self._planner.plan(matcher, place, self._left - 1, Effort(nodes, cheaper), known)
        self._vain += plan is None and not true
        if plan is not None and plan.cost > self._left - 1:
            self._saved -= min(self._planner.work // NODE, cheaper)
        return plan


class Guards:
    """Makes guards for a model: what depends on its vocabulary alone is made once."""

    def __init__(self, spelling: Spelling, ends: frozenset[int]) -> None:
        """Raises UsageError for a model that has no end token."""
        if not ends:
            raise UsageError("constrained output needs an end token, and this model has none", "name it in config.json: eos_token_id")
        self._spelling = spelling
        self._ends = sorted(end for end in ends if end < len(spelling.tokens))
        silent = [b"" if token in ends else text for token, text in enumerate(spelling.tokens)]
        self._usable = Spelling(silent, spelling.loses_space)
        self._vocabulary = Vocabulary(silent)
        self._bytes = byte_vocabulary()
        # Many lines of a batch have one constraint.
        self._kept = functools.lru_cache(maxsize=KEPT)(self._made)

    def guard(self, constraint: Constraint, prompt: Sequence[int], budget: int) -> Guard:
        """The guard of a sample that continues a prompt by `budget` tokens at most.

        Raises UsageError for a constraint that cannot be honoured, or not within the budget.
        """
        return self._kept(constraint, self._spelling.loses_space(prompt), budget).copy()

    def _made(self, constraint: Constraint, space: bool, budget: int) -> Guard:
        grammar = Grammar(constraint, space=space)
        tokens, matcher = grammar.matcher(self._vocabulary), grammar.matcher(self._bytes)
        planner = Planner(self._usable, grammar.names, grammar.examples, is_json=constraint.kind == "json-schema")
        place = Place(json=planner.is_json)
        # Of choices the cheapest is plain to see; for all else the search is the judge.
        texts = [(" " * space + text).encode() for text in grammar.choices]
        known = min((Plan(text, tuple(self._usable.costs(text))) for text in texts), key=lambda plan: plan.cost, default=Plan())
        plan = planner.plan(matcher, place, budget, START, known)
        if plan is None or plan.cost >= UNSPELLABLE:
            reason = "this model's vocabulary cannot spell" if plan else "no end was found for"
            raise UsageError(f"{constraint.flag}: {reason} any text that satisfies it", "does it ask for something without an end?")
        if plan.cost > budget:
            raise UsageError(
                f"{constraint.flag} needs at least {plan.cost} new tokens, --max-new-tokens is {budget}",
                f"use --max-new-tokens {plan.cost} or more, and a prompt that leaves room for them",
            )
        return Guard(self._usable, planner, self._ends, _State(tokens, matcher, place, plan), budget)
