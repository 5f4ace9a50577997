"""The rules of a generation_config.json: each rule alone, their order, and bad values."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.oracle import search_alone
from tests.engine.scripted import ScriptedExecutor
from tgen.checkpoint.generation import parse_generation
from tgen.engine.beam import Search, read_beams
from tgen.errors import CheckpointError, TgenError, UsageError
from tgen.options import GenerationOptions, resolve
from tgen.sampling.adjustment import Adjustment
from tgen.sampling.rules import RowRules, Rules, read_rules
from tgen.sampling.sampler import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
VOCAB, LENGTH = 8, 5
ENDS = frozenset({6, 7})
IDS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)
LOGITS = np.arange(1, VOCAB + 1, dtype=np.float32)
EVERY = set(range(VOCAB))


def rules(**generation: Any) -> Rules:
    config = parse_generation(generation, VOCAB)
    return read_rules(config, resolve({"max_new_tokens": LENGTH}, {}, config.options).options, ENDS)


def row(found: Rules, ids: Sequence[int], new: int) -> RowRules:
    """A row of these ids, the last `new` of them written here."""
    found_row = RowRules(found, ids[: len(ids) - new])
    for token in ids[len(ids) - new :]:
        found_row.take(token)
    return found_row


@pytest.mark.parametrize(("size", "length"), [(10**6, 6), (10**18, 6), (2_000, 4_000), (3_999, 4_000)])
@pytest.mark.parametrize("rule", ["no_repeat_ngram_size", "encoder_no_repeat_ngram_size"])
def test_a_long_sequence_takes_little_memory(rule: str, size: int, length: int) -> None:
    """Any number may be asked for, of a server by anyone who may use it. Tuples of all sequences would take 128 MB."""
    ids = [1, 2] * (length // 2)
    found = parse_generation({rule: size}, VOCAB)
    tracemalloc.start()
    try:
        settled = read_rules(found, resolve({"max_new_tokens": LENGTH}, {}, found.options).options, ENDS, 0, ids)
        kept = left(settled, ids, 3)
        assert tracemalloc.get_traced_memory()[1] < 6 * 10**6
    finally:
        tracemalloc.stop()
    assert kept == (set(range(VOCAB)) if size > length else set(range(VOCAB)) - {1})


@steady
@given(IDS, IDS, st.integers(1, 12), st.integers(1, 12))
def test_no_sequence_of_the_source_comes(source: list[int], ids: list[int], size: int, new: int) -> None:
    found = parse_generation({"encoder_no_repeat_ngram_size": size}, VOCAB)
    settled = read_rules(found, resolve({"max_new_tokens": LENGTH}, {}, found.options).options, ENDS, 0, source)
    slow = {token for token in EVERY if any([*ids, token][-size:] == source[i : i + size] for i in range(len(source) - size + 1))}
    assert left(settled, ids, min(new, len(ids) - 1)) == EVERY - slow


def left(found: Rules, ids: Sequence[int] = (0,), new: int = 0) -> set[int]:
    """The tokens that may come next; they keep their logits, and the input does not change."""
    logits = LOGITS.copy()
    try:
        allowed = row(found, ids, new).apply(logits)
    except CheckpointError as error:
        assert error.message.startswith("generation_config.json: ")
        assert error.message.endswith(f" every token at step {new}")
        return set()
    assert (logits == LOGITS).all()
    kept = {token for token in range(VOCAB) if allowed[token] > -np.inf}
    assert found.forced_first is not None or found.forced_last or all(allowed[token] == LOGITS[token] for token in kept)
    return kept


@steady
@given(IDS, st.integers(1, 12), st.integers(1, 12))
def test_no_sequence_comes_twice(ids: list[int], size: int, new: int) -> None:
    """Neither one of the prompt, nor one of the text, nor one across both."""
    slow = {token for token in EVERY if any([*ids, token][-size:] == ids[i : i + size] for i in range(len(ids) - size + 1))}
    assert left(rules(no_repeat_ngram_size=size), ids, min(new, len(ids) - 1)) == EVERY - slow


@steady
@given(IDS, st.lists(IDS.filter(lambda word: len(word) < 4), min_size=1, max_size=4))
def test_bad_words_are_not_completed(ids: list[int], words: list[list[int]]) -> None:
    bad = [word for word in words if word not in ([6], [7])]  # an end token alone is no bad word
    slow = {token for token in EVERY if any([*ids, token][-len(word) :] == word for word in bad)}
    assert left(rules(bad_words_ids=words), ids, 1) == EVERY - slow


@pytest.mark.parametrize(
    ("generation", "new", "forbidden"),
    [
        ({"min_new_tokens": 2}, 1, ENDS),
        ({"min_new_tokens": 2}, 2, set()),
        ({"min_length": 3}, 2, ENDS),
        ({"min_length": 3}, 3, set()),
        ({"min_length": 3, "min_new_tokens": 1}, 2, ENDS),
        ({"suppress_tokens": [1, 2]}, 3, {1, 2}),
        ({"suppress_tokens": 4}, 0, {4}),
        ({"begin_suppress_tokens": [1, 2]}, 0, {1, 2}),
        ({"begin_suppress_tokens": [1, 2]}, 1, set()),
        ({"suppress_tokens": [1], "begin_suppress_tokens": [2], "min_new_tokens": 1, "bad_words_ids": [[3]]}, 0, {1, 2, 3, *ENDS}),
        ({"forced_bos_token_id": 3}, 0, EVERY - {3}),
        ({"forced_bos_token_id": 3}, 1, set()),
        ({"forced_eos_token_id": 7}, LENGTH - 2, set()),
        ({"forced_eos_token_id": 7}, LENGTH - 1, EVERY - {7}),
        ({"forced_eos_token_id": [6, 7]}, LENGTH - 1, EVERY - {6, 7}),
        # A forced token wins over rules that forbid it.
        ({"forced_bos_token_id": 3, "suppress_tokens": [3], "bad_words_ids": [[3]], "no_repeat_ngram_size": 1}, 0, EVERY - {3}),
        ({"forced_eos_token_id": 7, "min_new_tokens": 9, "suppress_tokens": [7]}, LENGTH - 1, EVERY - {7}),
    ],
)
def test_a_rule(generation: dict[str, Any], new: int, forbidden: set[int]) -> None:
    assert left(rules(**generation), [3] * (new + 1), new) == EVERY - forbidden


def test_min_length_counts_the_prompt() -> None:
    options = GenerationOptions(max_new_tokens=LENGTH)
    config = parse_generation({"min_length": 5}, VOCAB)
    assert read_rules(config, options, ENDS, prompt=3).min_new_tokens == 2
    assert read_rules(config, options, ENDS, prompt=30).min_new_tokens <= 0


@pytest.mark.parametrize(
    "nothing", [{}, {"suppress_tokens": None}, {"bad_words_ids": []}, {"min_length": 0}, {"forced_eos_token_id": None}]
)
def test_without_rules_there_is_nothing_to_apply(nothing: dict[str, Any]) -> None:
    assert rules(**nothing).empty
    assert not rules(suppress_tokens=[0]).empty


def test_penalties_come_before_the_rules_and_filters_after() -> None:
    """The token that would be drawn is forbidden, and so is not among the k likeliest."""
    options = GenerationOptions(top_k=1, repetition_penalty=2.0, temperature=1.0)
    assert Sampler(options, 1, 0, [0]).draw(LOGITS) == 7
    assert Sampler(options, 1, 0, [7]).draw(LOGITS) == 6
    assert Sampler(options, 1, 0, [7], rules(suppress_tokens=[6])).draw(LOGITS) == 5
    assert Sampler(options, 1, 0, [7], rules(forced_bos_token_id=2)).draw(LOGITS) == 2
    assert Adjustment(options, rules(suppress_tokens=[7]), [6]).apply(LOGITS)[1].tolist() == [1, 2, 3, 4, 5, 6, 3.5, -np.inf]


@pytest.mark.parametrize(
    ("generation", "size", "error", "message"),
    [
        ({"suppress_tokens": [*EVERY]}, None, CheckpointError, "generation_config.json: suppress_tokens forbids every token at step 2"),
        ({"suppress_tokens": [*EVERY]}, 1, CheckpointError, "generation_config.json: suppress_tokens forbids every token at step 2"),
        ({"bad_words_ids": [[0], [1, 3]], "suppress_tokens": [1, 2, 4, 5, 6, 7], "min_length": 1}, None, CheckpointError,
         "generation_config.json: bad_words_ids and suppress_tokens together forbid every token at step 2"),
        ({}, 1, UsageError, "--no-repeat-ngram-size 1 forbids every token at step 2"),
        ({"no_repeat_ngram_size": 2}, 1, UsageError, "--no-repeat-ngram-size 1 forbids every token at step 2"),
        ({"no_repeat_ngram_size": 1}, None, CheckpointError,
         "generation_config.json: no_repeat_ngram_size forbids every token at step 2"),
        ({"suppress_tokens": [7]}, 1, UsageError,
         "--no-repeat-ngram-size 1 and suppress_tokens of generation_config.json together forbid every token at step 2"),
    ],
)  # fmt: skip
def test_rules_that_leave_nothing_are_named(generation: dict[str, Any], size: int | None, error: type[TgenError], message: str) -> None:
    config = parse_generation(generation, VOCAB)
    options = resolve({"max_new_tokens": LENGTH, "no_repeat_ngram_size": size}, {}, config.options).options
    found = read_rules(config, options, ENDS)
    ids = [*range(VOCAB - ("suppress_tokens" in generation)), 1]  # where 7 is suppressed it is not needed
    with pytest.raises(error) as caught:
        row(found, ids, 2).apply(LOGITS)
    assert caught.value.message == message
    assert caught.value.hint


@steady
@given(IDS, st.lists(st.integers(0, VOCAB - 1), max_size=8), st.data())
def test_a_copy_is_a_row_of_its_own(prompt: list[int], written: list[int], data: st.DataObject) -> None:
    """Beams copy their rows: what one of them writes changes what is forbidden to it alone."""
    words = data.draw(st.lists(IDS.filter(lambda word: len(word) < 4), max_size=3))
    found = rules(bad_words_ids=words, no_repeat_ngram_size=data.draw(st.integers(0, 4)), min_new_tokens=len(written) + 2)

    def outcome(one: RowRules) -> list[float] | str:
        try:
            return list(one.apply(LOGITS).tolist())
        except CheckpointError as error:
            return error.message

    first = row(found, [*prompt, *written], len(written))
    second = first.copy()
    for token in (0, 1):
        first.take(token)
        second.take(token + 1)
    for one, ids in ((first, (0, 1)), (second, (1, 2))):
        assert outcome(one) == outcome(row(found, [*prompt, *written, *ids], len(written) + 2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("suppress_tokens", [VOCAB]),
        ("suppress_tokens", [-1]),
        ("suppress_tokens", [True]),
        ("begin_suppress_tokens", ["1"]),
        ("forced_bos_token_id", 1.0),
        ("forced_eos_token_id", {"a": 1}),
        ("bad_words_ids", "all of them"),
        ("bad_words_ids", [[VOCAB]]),
        ("bad_words_ids", [[[1]]]),
        ("min_length", -1),
        ("min_new_tokens", "2"),
        ("no_repeat_ngram_size", 2.5),
        ("length_penalty", "long"),
        ("length_penalty", float("nan")),
        ("length_penalty", 1e308),
        ("length_penalty", -(10**400)),
        ("early_stopping", "always"),
        ("early_stopping", [True]),
    ],
)
def test_a_bad_value_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"^generation_config.json: {key} = ") as caught:
        parse_generation({key: value}, VOCAB)
    assert caught.value.hint


KEYS = """bad_words_ids begin_suppress_tokens forced_bos_token_id forced_eos_token_id min_length min_new_tokens no_repeat_ngram_size
suppress_tokens length_penalty early_stopping""".split()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@steady
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING), st.integers(2, 3))
def test_hostile_values_are_never_more_than_a_message(generation: dict[str, Any], beams: int) -> None:
    try:
        found, settings = rules(**generation), read_beams(parse_generation(generation, VOCAB), beams)
    except CheckpointError as error:
        assert any(f"{key} = " in error.message for key in generation)
        return
    search = Search(settings, ENDS, LENGTH)
    try:
        search_alone(ScriptedExecutor(lambda _: LOGITS), [0], search, GenerationOptions(), found)
    except CheckpointError as error:
        assert "every token at step" in error.message
        return
    assert 1 <= len(search.best(1)[0]) <= LENGTH
