"""--logit-bias, --ban, --min-new-tokens, --max-time and DRY: what they forbid, however the tokens are cut, and in every kind of run."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from itertools import count, product
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.scripted import END, VOCAB, Stage, byte_tokenizer
from tests.sampling.naive import softmax
from tests.sampling.test_distribution import DRAWS, LOGITS, OFF, PROMPT, assert_distributed
from tests.sampling.test_sampler import steady
from tgen.errors import UsageError
from tgen.options import GenerationOptions, resolve
from tgen.sampling import dry
from tgen.sampling.dry import Dry
from tgen.sampling.rules import Rules
from tgen.sampling.sampler import Sampler
from tgen.sampling.wording import Texts, Wordings

PIECES = [b"a", b"b", b"ab", b"ba", b"aab", b"c", b"", "é".encode(), "é".encode()[:1], "é".encode()[1:], b"bc"]
pieces = st.lists(st.integers(0, len(PIECES) - 1), max_size=12)
banned = st.lists(st.sampled_from(["a", "ab", "abc", "bab", "é", "aba", "cc", "aéa"]), min_size=1, max_size=3, unique=True)


@steady
@given(banned, pieces)
def test_a_text_is_found_wherever_it_is_completed(texts: list[str], ids: list[int]) -> None:
    found, tail, before = Texts(texts, PIECES), b"", b""
    for token in ids:
        completing = found.completing(tail)
        for one, spelled in enumerate(PIECES):
            ends = any((before + spelled).find(text.encode(), max(0, len(before) - len(text.encode()) + 1)) >= 0 for text in texts)
            assert (one in completing) == ends == found.completes(tail, one)
        tail, before = found.follow(tail, token), before + PIECES[token]


def noisy(read: tuple[int, ...]) -> np.ndarray:
    """A model that likes a few letters, and ends now and then."""
    logits = np.full(VOCAB, -20.0)
    logits[97:101] = np.random.default_rng([len(read), read[-1]]).normal(0, 1, 4)
    logits[END] = -1
    return logits


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"num_beams": 3}, {"samples": 3}, {"mirostat_tau": 2.0}], ids=str)
def test_a_banned_text_never_comes(options: dict[str, Any]) -> None:
    wanted = {"max_new_tokens": 40, "seed": 1, "ignore_eos": True, **options}
    texts = ["ab", "bbc", "da"]
    free, held = Stage(noisy).play(**wanted), Stage(noisy).play(**wanted, ban=texts)
    for row in range(options.get("samples", 1)):
        assert any(text in free.text(row) for text in texts)
        assert len(held.text(row)) > 20 and not any(text in held.text(row) for text in texts)


def test_a_ban_on_everything_is_named() -> None:
    rules = Rules(9, banned=Texts(["a"], [b"a", b"ba"]))
    with pytest.raises(UsageError, match=r"^--ban forbids every token at step 3$"):
        rules.masked(np.zeros(2, dtype=np.float32), [0], 3)


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"num_beams": 2}], ids=str)
def test_no_end_comes_before_the_minimum(options: dict[str, Any]) -> None:
    def ending(read: tuple[int, ...]) -> np.ndarray:
        logits = noisy(read)
        logits[END] = 5
        return logits

    played = Stage(ending).play(min_new_tokens=7, max_new_tokens=40, seed=3, **options)
    assert played.finished[0].reason == "stop" and played.finished[0].token_count == 8


@pytest.mark.parametrize("options", [{}, {"samples": 2}, {"num_beams": 2}], ids=str)
def test_a_text_ends_after_its_time(options: dict[str, Any]) -> None:
    def slow(read: tuple[int, ...]) -> np.ndarray:
        time.sleep(0.002)
        return noisy(read)

    played = Stage(slow).play(max_time=0.02, max_new_tokens=500, ignore_eos=True, seed=1, **options)
    whole = Stage(noisy).play(max_new_tokens=500, ignore_eos=True, seed=1, **options)
    for index, finished in played.finished.items():
        assert finished.reason == "time" and 1 <= finished.token_count < 100
        assert "num_beams" in options or whole.text(index).startswith(played.text(index))


@pytest.mark.parametrize("biases", [{"2": -1.5, "9": 2}, ["2=-1.5", "9=2"], [[2, -1.5], [9, 2]], {2: -1.5, 9: 2.0}])
def test_a_bias_is_added_to_the_logit(biases: object) -> None:
    options = resolve({**OFF, "logit_bias": biases}, {}, {}).options
    wording = Wordings(byte_tokenizer(), len(LOGITS)).read(options)
    logits = np.array(LOGITS, dtype=np.float32)
    tokens = [Sampler(options, 5, row, PROMPT, wording=wording).draw(logits) for row in range(DRAWS // 2)]
    shifted = [logit + {2: -1.5, 9: 2.0}.get(token, 0.0) for token, logit in enumerate(LOGITS)]
    assert_distributed(np.array(tokens), softmax(shifted))


@pytest.mark.parametrize(("name", "token"), [("98", 98), ("b", ord("b")), ('"7"', ord("7")), ('"', ord('"')), ("=", ord("="))])
def test_a_token_has_an_id_or_a_text(name: str, token: int) -> None:
    assert Stage(noisy).play(logit_bias=[f"{name}=99"], max_new_tokens=2, temperature=0).text() == 2 * chr(token)


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ("b", "--logit-bias must be TOKEN=VALUE, not 'b'"),
        ("=1", "--logit-bias must be TOKEN=VALUE, not '=1'"),
        ("b=inf", "--logit-bias must be TOKEN=VALUE, not 'b=inf'"),
        ("9" * 5000 + "=1", "--logit-bias must be TOKEN=VALUE, not '99"),
        ("abc=1", "--logit-bias 'abc' is 3 tokens: 97 'a', 98 'b', 99 'c'"),
        ("9999=1", "--logit-bias 9999 is no id of the model, whose vocabulary ends at 257"),
        ([[True, 1]], "--logit-bias must give each token a number, not [True, 1]"),
        ({"a": None}, "--logit-bias must give each token a number, not ('a', None)"),
        (7, "--logit-bias must be TOKEN=VALUE, not 7"),
    ],
)
def test_a_wrong_bias_is_named(bias: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Stage(noisy).play(logit_bias=[bias] if isinstance(bias, str) else bias)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "--min-new-tokens 9 is more than --max-new-tokens 3"),
        ({"max_time": 0}, "--max-time must be above 0, not 0"),
        ({"ban": ("",)}, "--ban must not be empty"),
        ({"ban": "x"}, "--ban must be a sequence of texts, not 'x'"),
        ({"choices": ["a"], "max_time": 1}, "--choices and --max-time exclude each other"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(options, {}, {})
    assert caught.value.message == message
    assert resolve({"max_new_tokens": 3}, {}, {"min_new_tokens": 9}).options.min_new_tokens == 9, (
        "a folder's minimum is no mistake of a user"
    )


def punished(ids: Sequence[int], breakers: Sequence[int], options: GenerationOptions) -> dict[int, float]:
    """The penalty of each token as oobabooga's pull request 5677 describes it, place by place."""
    found: dict[int, float] = {}
    last = list(ids) if options.dry_penalty_last_n < 0 else list(ids[max(0, len(ids) - options.dry_penalty_last_n) :])
    for place in range(len(last)):
        length = 0
        while length < place and last[place - 1 - length] == last[len(last) - 1 - length] and last[len(last) - 1 - length] not in breakers:
            length += 1
        if length >= options.dry_allowed_length:
            penalty = options.dry_multiplier * options.dry_base ** (length - options.dry_allowed_length)
            found[last[place]] = max(found.get(last[place], 0.0), penalty)
    return found


@steady
@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4), st.integers(-1, 15))
def test_dry_is_what_its_source_says(prompt: list[int], output: list[int], allowed: int, last: int) -> None:
    options = GenerationOptions(dry_multiplier=0.8, dry_allowed_length=allowed, dry_penalty_last_n=last, dry_base=1.5)
    for texts, longest in product((None, ["d"]), (2, dry.LONGEST_KEY)):
        breakers = None if texts is None else Texts(texts, [b"a", b"b", b"c", b"d"])
        with mock.patch.object(dry, "LONGEST_KEY", longest):
            row = Dry(options, prompt, breakers)
        for token in output:
            row.take(token)
        other = row.copy()
        other.take(1)
        scores = row.apply(np.zeros(4, dtype=np.float32))
        wanted = punished([*prompt, *output], [] if texts is None else [3], options)
        assert scores.tolist() == pytest.approx([-wanted.get(token, 0.0) for token in range(4)], rel=1e-6)


@pytest.mark.parametrize("allowed", [2, 3, 20])
def test_a_step_of_dry_looks_at_no_place_of_a_common_token(allowed: int) -> None:
    """Every second token of the text is the same one; what a step reads takes memory, which does not grow with the text."""
    options, other = GenerationOptions(dry_multiplier=0.8, dry_allowed_length=allowed), count(1)
    most, scores = {}, np.zeros(20_000, dtype=np.float32)
    for length in (1_000, 10_000):
        row = Dry(options, [token for _ in range(length // 2) for token in (0, next(other))], None)
        tracemalloc.start()
        try:
            for token in (token for _ in range(10) for token in (0, next(other))):
                row.take(token)
                row.apply(scores)
            most[length] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most[10_000] < 1.5 * most[1_000]


@pytest.mark.parametrize(
    "options",
    [{"dry_multiplier": 2.0}, {"repetition_penalty": 2.0}, {"frequency_penalty": 1.0}, {"logit_bias": ("97=5",)}, {"ban": ("a",)}, {}],
    ids=str,
)
def test_penalties_leave_the_model_s_logits_as_they_are(options: dict[str, Any]) -> None:
    """Log-probabilities and traces show them."""
    settled = GenerationOptions(**{**OFF, **options})
    wording = Wordings(byte_tokenizer(), VOCAB).read(settled)
    sampler = Sampler(settled, 1, 0, [97, 98, 99] * 3, Rules(9, banned=wording.banned), wording=wording)
    logits = noisy((97, 98, 99))
    before = logits.copy()
    for _ in range(3):
        sampler.draw(logits)
        assert (logits == before).all()


def test_dry_keeps_a_text_from_repeating_itself() -> None:
    def circling(read: tuple[int, ...]) -> np.ndarray:
        logits = np.full(VOCAB, -20.0)
        logits[[*b"abcdefgh"]] = 0
        logits[97 + (read[-1] - 96) % 5] = 4
        return logits

    plain, dry = (Stage(circling).play(max_new_tokens=60, temperature=0, dry_multiplier=m).text() for m in (0, 2))
    assert plain.count("abcde") > 9 > 3 > dry.count("abcde")
    loud = Stage(circling).play(max_new_tokens=60, temperature=0, dry_multiplier=2, dry_sequence_breakers=["e"]).text()
    assert loud.count("abcde") > dry.count("abcde"), "no sequence goes beyond a breaker"
    assert np.isfinite(Dry(GenerationOptions(dry_multiplier=1e308), [1] * 5000, None).apply(np.zeros(4, np.float32))).all()
