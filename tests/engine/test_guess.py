"""Guessing ahead never changes what is written: the events with guesses are those without."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.engine.scripted import END, VOCAB, Played, Script, ScriptedExecutor, byte_tokenizer, only, speak
from tests.executors.test_session import model
from tests.sweeps import sweep
from tgen.engine.draft import Draft
from tgen.engine.generator import Generator
from tgen.engine.opening import load
from tgen.engine.request import Request
from tgen.errors import TgenError, UsageError
from tgen.events import Event, Finished, Piece
from tgen.executors.torch.session import TorchExecutor
from tgen.options import GuessOptions, settle_guesses
from tgen.sampling.sampler import Trace

Options = dict[str, Any]
CONTEXT = 90


def peaked(read: tuple[int, ...]) -> np.ndarray:
    """Logits that repeat earlier ids often enough for guesses to be right, and often enough for them to be wrong."""
    choose = np.random.default_rng([*read[-2:], len(read) % 3 == 0])
    logits = choose.normal(size=VOCAB)
    logits[choose.integers(97, 103)] += 8
    logits[choose.integers(97, 103)] += 7
    logits[END] += 3
    return logits


def generator(*, guess: bool, script: Script = peaked, draft: Script | None = None, context: int = CONTEXT) -> Generator:
    small = None if draft is None else Draft(ScriptedExecutor(draft, context), context, VOCAB, 0.1)
    executor = ScriptedExecutor(script, context)
    return Generator(executor, byte_tokenizer(), context=context, end_tokens=frozenset({END}), guess=guess, draft=small)


def mix(choose: np.random.Generator) -> tuple[str, Options]:
    """A prompt and options of any kind."""
    kinds: list[Options] = [
        {"temperature": 0},
        {"temperature": 0, "logprobs": 3},
        {"temperature": 0.5, "logprobs": 0},
        {"samples": 3},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
        {"no_repeat_ngram_size": 3},
        {"min_p": 0.1, "top_k": 5, "top_p": 0.9},
        {"typical_p": 0.7, "xtc_probability": 0.5, "top_n_sigma": 1.5, "samplers": "xtc,typical_p,temperature,top_n_sigma"},
        {"mirostat_tau": 1.5, "mirostat_eta": 0.4},
        {"dry_multiplier": 1.0, "dry_sequence_breakers": ["c"], "ban": ["ab", "fde"], "logit_bias": {"97": 2}, "min_new_tokens": 9},
        {"stop": ("ab", "cde", "fa", "d")},
        {"temperature": 0, "stop": ("bab", "aa")},
        {"ignore_eos": True},
        {"regex": "[a-f]{3,40}", "ignore_eos": False},
        {"choices": ["abcabcabc", "abcdef", "fa"]},
        {"num_beams": 2},
    ]
    letters = "".join(choose.choice(list("abcdef"), int(choose.integers(2, 60))))
    options = {"seed": int(choose.integers(1000)), "max_new_tokens": int(choose.integers(9, 60)), "overflow": "shrink"}
    return letters, {**options, **kinds[int(choose.integers(len(kinds)))]}


def joined(events: Sequence[Event | TgenError]) -> list[Any]:
    """The events by sample, without times and counts of guesses: these say how a text was made."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, Finished):
            event = replace(event, prefill_seconds=0, decode_seconds=0, guessed=0, guessed_right=0)
        found[event.index if isinstance(event, Piece | Finished) else -1].append(repr(event))
    return sorted(found.items())


def together(made: Generator, wishes: Sequence[tuple[str, Options]], rows: int) -> dict[int, list[Event | TgenError]]:
    todo = [Request(key, prompt, made.resolve(options)) for key, (prompt, options) in enumerate(wishes)]
    found: dict[int, list[Event | TgenError]] = defaultdict(list)
    for key, event in made.run_many(lambda _: todo.pop(0) if todo else None, rows):
        found[key].append(event)
    return found


@pytest.mark.parametrize(("rows", "count"), sweep([(1, 60), (5, 60), (1, 200), (5, 200)], lambda one: one[1] == 60))
def test_events_are_the_same_for_every_mix_of_options(rows: int, count: int) -> None:
    choose = np.random.default_rng(rows)
    wishes = [mix(choose) for _ in range(count)]
    plain, guessed = (together(generator(guess=guess), wishes, rows) for guess in (False, True))
    for key, wish in enumerate(wishes):
        assert joined(guessed[key]) == joined(plain[key]), wish
    finished = [event for events in guessed.values() for event in events if isinstance(event, Finished)]
    assert 0 < sum(event.guessed_right for event in finished) < sum(event.guessed for event in finished)


@pytest.mark.parametrize(("rows", "count"), sweep([(5, 40), (1, 20), (1, 40)], lambda one: one != (1, 40)))
def test_events_are_the_same_with_a_real_model(rows: int, count: int) -> None:
    choose = np.random.default_rng(7)
    wishes = [mix(choose) for _ in range(count)]
    executor = TorchExecutor(model("llama"))
    made = [Generator(executor, byte_tokenizer(), context=CONTEXT, end_tokens=frozenset({END}), guess=guess) for guess in (False, True)]
    plain, guessed = (together(one, wishes, rows) for one in made)
    for key, wish in enumerate(wishes):
        texts = [
            ["".join(e.text for e in found[key] if isinstance(e, Piece) and e.index == row) for row in range(3)]
            for found in (plain, guessed)
        ]
        assert texts[0] == texts[1], wish


def test_guesses_save_steps() -> None:
    text = "the cat sat on the mat and the cat sat on the mat and the cat sat on the mat"
    steps = {}
    for guess in (False, True):
        made = generator(guess=guess, script=speak(text), context=500)
        assert made.generate("P", temperature=0) == text
        steps[guess] = len(made.executor.sessions[0].read) if isinstance(made.executor, ScriptedExecutor) else 0
    assert steps[False] == len(text) + 1
    assert steps[True] < 0.75 * steps[False]


def test_traces_are_the_same() -> None:
    seen: dict[bool, list[str]] = {}
    for guess in (False, True):
        traces: list[Trace] = []
        made = generator(guess=guess)
        list(made.run("abcabcabc", made.resolve({"seed": 3, "max_new_tokens": 40}), watch=traces.append))
        seen[guess] = [f"{one.token} {one.uniform} {one.scores.tobytes()!r}" for one in traces]
    assert seen[True] == seen[False]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_cancelled_in_the_middle(steps: int) -> None:
    """What was written before the signal is a beginning of the whole text, and the prefix continues it rightly."""
    made, plain = (
        generator(guess=True, script=speak("abc" * 20), context=300),
        generator(guess=False, script=speak("abc" * 20), context=300),
    )
    whole, asked = plain.generate("P", temperature=0), 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    prefix = made.prefix()
    text = Played(list(made.run("P", made.resolve({"temperature": 0}), cancelled, prefix=prefix))).text()
    assert whole.startswith(text)
    assert bytes(prefix.ids).decode() == ("P" + text)[: len(prefix.ids)]
    assert len(prefix.ids) >= len(text)
    assert Played(list(made.run(f"P{text}", made.resolve({"temperature": 0}), prefix=prefix))).text() == whole[len(text) :]


def test_an_error_after_right_guesses_comes_after_their_text() -> None:
    def script(read: tuple[int, ...]) -> np.ndarray:
        return np.full(VOCAB, np.nan) if len(read) > 30 else only(b"abc"[len(read) % 3])

    found = {
        guess: together(generator(guess=guess, script=script), [("ab", {"temperature": 0, "seed": 1})], 1)[0] for guess in (False, True)
    }
    assert joined(found[True][:-1]) == joined(found[False][:-1])
    assert isinstance(found[True][-1], TgenError)
    assert str(found[True][-1]) == str(found[False][-1])


def drafter(read: tuple[int, ...]) -> np.ndarray:
    """A draft model that agrees with `peaked` in part."""
    logits = peaked(read)
    logits[97:103] += np.random.default_rng(read[-1]).normal(size=6) * 2
    return logits


@pytest.mark.parametrize("rows", [1, 5])
def test_a_draft_model_changes_no_greedy_and_no_constrained_text(rows: int) -> None:
    choose = np.random.default_rng(rows)
    wishes = [(prompt, {**options, "temperature": 0}) for prompt, options in (mix(choose) for _ in range(100))]
    wishes += [("abc", {"regex": "[a-f]{3,40}", "seed": seed, "max_new_tokens": 50}) for seed in range(10)]
    plain, drafted = together(generator(guess=False), wishes, rows), together(generator(guess=True, draft=drafter), wishes, rows)
    for key, wish in enumerate(wishes):
        assert joined(drafted[key]) == joined(plain[key]), wish
    finished = [event for events in drafted.values() for event in events if isinstance(event, Finished)]
    assert 0 < sum(event.guessed_right for event in finished) < sum(event.guessed for event in finished)


def test_with_a_draft_model_a_text_does_not_depend_on_the_rows_beside_it() -> None:
    choose = np.random.default_rng(3)
    wishes = [mix(choose) for _ in range(60)]
    alone, beside = (together(generator(guess=True, draft=drafter), wishes, rows) for rows in (1, 7))
    for key, wish in enumerate(wishes):
        assert joined(alone[key]) == joined(beside[key]), wish


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1, "seed": 4}, {"samples": 4, "seed": 2}])
def test_every_guess_of_a_draft_model_that_is_the_model_itself_is_right(options: Options) -> None:
    """This fails if the draft model's row and the text ever differ."""
    made = generator(guess=True, draft=peaked, context=700)
    played = Played(list(made.stream("abc" * 100, **{**options, "max_new_tokens": 300, "ignore_eos": True})))
    for finished in played.finished.values():
        assert finished.guessed == finished.guessed_right > 200


def test_a_conversation_keeps_the_row_of_the_draft_model() -> None:
    made, options = generator(guess=True, draft=peaked, context=700), {"temperature": 0, "max_new_tokens": 60, "ignore_eos": True}
    assert made.draft is not None and isinstance(made.draft.executor, ScriptedExecutor)
    prefix, prompt = made.prefix(), "abc" * 50
    for _ in range(4):
        played = Played(list(made.run(prompt, made.resolve(options), prefix=prefix)))
        assert played.text() == generator(guess=False, context=700).generate(prompt, **options)
        assert played.finished[0].guessed == played.finished[0].guessed_right > 0
        prompt += played.text() + "x"
    reads = [len(ids) for session in made.draft.executor.sessions for rows in session.read for ids in rows]
    assert sum(length for length in reads if length > 20) < 160, "only the first prompt is read as a whole"


def test_a_draft_model_with_a_smaller_context_stops_in_time() -> None:
    made = generator(guess=True, draft=peaked, context=300)
    made.draft = Draft(ScriptedExecutor(peaked, 50), 50, VOCAB, 0.1)
    options = {"temperature": 0, "max_new_tokens": 200, "ignore_eos": True}
    for prompt in ("abc", "abc" * 30):
        assert made.generate(prompt, **options) == generator(guess=False, context=300).generate(prompt, **options)


def test_a_draft_model_leaves_the_distribution_unchanged() -> None:
    """A chi-square test of texts of three tokens, whose draft model is biased and does not know all of the tokens."""
    weights, biased = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.2, 0.2, 0.6, 0.0])

    def law(shares: np.ndarray) -> Script:
        def script(read: tuple[int, ...]) -> np.ndarray:
            logits = np.full(VOCAB, -1e4)
            with np.errstate(divide="ignore"):
                logits[97:101] = np.maximum(np.log(np.roll(shares, len(read) % 2 + read[-1] % 2)), -1e4)
            return logits

        return script

    made = generator(guess=True, script=law(weights), draft=law(biased))
    options: Options = {"temperature": 1, "top_k": 0, "top_p": 1, "max_new_tokens": 3}
    count = 4000
    found: Counter[str] = Counter()
    right = 0
    for start in range(0, count, 100):
        played = Played(list(made.stream("P", seed=start, samples=100, **options)))
        found.update(played.text(row) for row in range(100))
        right += sum(event.guessed_right for event in played.finished.values())
    assert right > count / 4, "guesses take part"
    chance: dict[str, float] = {"": 1.0}
    for _ in range(3):
        longer = {}
        for text, share in chance.items():
            logits = law(weights)(tuple(f"P{text}".encode()))
            for token in range(97, 101):
                longer[text + chr(token)] = share * float(np.exp(logits[token]))
        chance = longer
    wanted = {text: share * count for text, share in chance.items()}
    square = sum((found[text] - expected) ** 2 / expected for text, expected in wanted.items())
    assert square < 63 + 4 * (2 * 63) ** 0.5  # four standard deviations above the mean of the distribution with 63 degrees of freedom


def test_asked_options_override_the_environment() -> None:
    environment = {"TGEN_GUESS": "on", "TGEN_DRAFT_MODEL": "small"}
    assert settle_guesses({}, environment) == GuessOptions(True, "small")
    assert settle_guesses({"guess": False}, environment) == GuessOptions(False)
    assert settle_guesses({"draft_model": "other"}, {"TGEN_GUESS": "0"}) == GuessOptions(None, "other")
    assert settle_guesses({}, {"TGEN_GUESS": ""}) == GuessOptions()
    for asked, variables in (({"guess": False, "draft_model": "x"}, {}), ({}, {"TGEN_GUESS": "perhaps"}), ({"draft_model": ""}, {})):
        with pytest.raises(UsageError):
            settle_guesses(asked, variables)


def test_only_a_draft_model_with_the_same_tokenizer_is_opened() -> None:
    for name, reason in ((GOLDEN / "llama2", "another tokenizer"), (GOLDEN / "t5", "decoder-only")):
        with pytest.raises(UsageError, match=reason) as caught:
            load(draft_model=str(name))
        assert caught.value.hint
    with pytest.raises(UsageError, match="decoder-only"):
        load(GOLDEN / "t5", draft_model=str(GOLDEN / "llama2"))
    made = load(GOLDEN / "llama2", draft_model=str(GOLDEN / "llama2"))
    plain = load(GOLDEN / "llama2", guess=False)
    assert made.generate("a cat", temperature=0, max_new_tokens=20) == plain.generate("a cat", temperature=0, max_new_tokens=20)
