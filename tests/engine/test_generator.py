"""From a prompt to events: the order of events, how samples end, which prompts fit, and that a seed determines the text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from tests.engine.scripted import END, START, VOCAB, Played, Script, Stage, always, only, speak
from tgen.engine.job import CHUNK
from tgen.engine.prefix import Prefix
from tgen.errors import CapacityError, UsageError
from tgen.events import Finished, Note, Piece, Reading, Special, Started
from tgen.options import GenerationOptions, resolve
from tgen.sampling.logits import NumericalError
from tgen.sampling.sampler import Sampler

LETTERS = np.full(VOCAB, -50.0)
LETTERS[[*b"abcdefgh"]] = 0.0


def babble(read: tuple[int, ...]) -> np.ndarray:
    """Logits for letters, which depend a little on the ids read, and sometimes for the end token."""
    logits = LETTERS.copy()
    logits[97 + sum(read) % 8] = 1.0
    logits[END] = 0.0
    return logits


def calls(stage: Stage, kind: str) -> list[list[Any]]:
    return [arguments for name, arguments in stage.sessions[0].calls if name == kind]


# Events


def test_events_come_in_order() -> None:
    played = Stage(speak("hi")).play(temperature=0, seed=7)
    assert [type(event) for event in played] == [Started, Piece, Piece, Finished]
    assert played.started == Started(prompt_tokens=1, max_new_tokens=256, seed=7)
    assert (played.finished[0].reason, played.finished[0].token_count) == ("stop", 3)  # the end token counts
    assert played.finished[0].prefill_seconds >= 0
    assert played.finished[0].decode_seconds >= 0


def test_a_special_token_is_told_and_is_no_text() -> None:
    ids = [ord("a"), START, ord("b"), END]
    played = Stage(lambda read: only(ids[len(read) - 1])).play(temperature=0)
    assert played.events[1:-1] == [Piece(0, "a"), Special(0, "<start>"), Piece(0, "b")]


@pytest.mark.parametrize("prompt", [5, None, b"abc", ["a text"], [1.5], {1: 2}])
def test_a_prompt_of_another_type_is_refused_by_name(prompt: object) -> None:
    with pytest.raises(UsageError, match="a prompt must be text or"):
        Stage(speak("hi")).generator.generate(prompt)  # type: ignore[arg-type]


def test_every_sample_finishes_once_and_says_nothing_after() -> None:
    played = Stage(babble).play(samples=8, seed=3, max_new_tokens=40)
    assert isinstance(played.events[0], Started)
    over: set[int] = set()
    for event in played.events[1:]:
        assert isinstance(event, Piece | Finished)
        assert event.index not in over
        if isinstance(event, Finished):
            over.add(event.index)
    assert over == set(range(8))


def test_generate_is_the_text_of_the_first_sample() -> None:
    stage = Stage(babble)
    assert stage.generator.generate("P", seed=3, samples=4) == stage.play(seed=3, samples=4).text(0)


def test_a_character_of_several_tokens_comes_out_whole() -> None:
    assert Stage(speak("a😀é")).play(temperature=0).pieces() == ["a", "😀", "é"]


def test_a_seed_is_chosen_and_reported() -> None:
    stage = Stage(babble)
    first, second = stage.play(), stage.play()
    assert first.started.seed != second.started.seed
    assert stage.play(seed=first.started.seed).text() == first.text()


# Ends


@pytest.mark.parametrize(("ends", "text"), [((END,), "ab.c"), ((END, ord(".")), "ab"), ((), None)])
def test_end_tokens(ends: tuple[int, ...], text: str | None) -> None:
    played = Stage(speak("ab.c"), end_tokens=ends).play(temperature=0, max_new_tokens=8)
    assert played.text() == (text or "ab.c")
    assert played.finished[0].reason == ("stop" if ends else "length")


def test_ignore_eos_goes_on_after_the_end() -> None:
    stage = Stage(lambda read: only(END if len(read) % 2 else ord("x")))
    played = stage.play(temperature=0, ignore_eos=True, max_new_tokens=6)
    assert (played.text(), played.finished[0].reason, played.finished[0].token_count) == ("xxx", "length", 6)


def test_length() -> None:
    stage = Stage(speak("abcdef"))
    played = stage.play(temperature=0, max_new_tokens=3)
    assert (played.text(), played.finished[0].reason, played.finished[0].token_count) == ("abc", "length", 3)
    assert len(calls(stage, "extend")) == 3  # the prompt and two tokens: nobody needs to read the last


def test_length_cuts_a_character() -> None:
    assert Stage(speak("a😀")).play(temperature=0, max_new_tokens=3).pieces() == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_cancelled_keeps_and_flushes() -> None:
    """The text held back is the beginning of a stop string and half a character."""
    asked = count(1)
    stage = Stage(speak("oneb😀"))
    played = list(stage.generator.stream("P", temperature=0, stop=["bX"], cancelled=lambda: next(asked) == 6))
    assert "".join(event.text for event in played if isinstance(event, Piece)) == "oneb\N{REPLACEMENT CHARACTER}"
    last = played[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.token_count) == ("cancelled", 6)


def test_cancelled_ends_every_sample_and_leaves_the_ends_of_others_alone() -> None:
    asked = count(1)
    events = list(Stage(babble).generator.stream("P", samples=8, seed=3, cancelled=lambda: next(asked) == 4))
    finished = {event.index: event for event in events if isinstance(event, Finished)}
    assert len(finished) == 8
    assert {event.reason for event in finished.values()} == {"stop", "cancelled"}
    assert all(event.token_count == 4 for event in finished.values() if event.reason == "cancelled")


def test_a_sample_that_ends_by_itself_was_not_cancelled() -> None:
    asked = count(1)
    *pieces, last = Stage(speak("abc")).generator.stream("P", temperature=0, cancelled=lambda: next(asked) == 4)
    assert isinstance(last, Finished)
    assert (last.reason, len(pieces)) == ("stop", 4)


@pytest.mark.parametrize("beams", [1, 2])
def test_logits_that_are_not_finite_are_refused(beams: int) -> None:
    script: Script = lambda read: np.full(VOCAB, np.nan) if len(read) > 2 else babble(read)  # noqa: E731
    with pytest.raises(NumericalError, match="not finite at step 2"):
        Stage(script, end_tokens=()).play(num_beams=beams, temperature=0)


# Samples


def test_samples_share_the_prefill() -> None:
    stage = Stage(babble)
    stage.play("prompt", samples=3, seed=0, max_new_tokens=2, ignore_eos=True)
    assert stage.sessions[0].calls[1:3] == [("extend", [[*b"prompt"]]), ("select", [0, 0, 0])]
    assert [len(rows) for rows in calls(stage, "extend")] == [1, 3]


def test_finished_rows_leave_the_batch() -> None:
    stage = Stage(babble)
    played = stage.play(samples=8, seed=3, max_new_tokens=40)
    lengths = [played.finished[index].token_count for index in range(8)]
    assert len(set(lengths)) > 3, "the samples end at different times"
    steps = range(1, max(lengths))
    assert [len(rows) for rows in calls(stage, "extend")] == [1] + [sum(length > step for length in lengths) for step in steps]


def test_a_seed_is_a_text_whatever_other_rows_do() -> None:
    """Each sample of a batch, written alone from nothing but its seed and its row."""
    together = Stage(babble).play(samples=8, seed=3, max_new_tokens=40)
    assert len({together.text(index) for index in range(8)}) > 4
    for index in range(8):
        sampler, read = Sampler(GenerationOptions(), 3, index, b"P"), [*b"P"]
        while read[-1] != END and len(read) < 41:
            read.append(sampler.draw(babble(tuple(read)).astype(np.float32)))
        assert together.text(index) == bytes(token for token in read[1:] if token != END).decode()


@pytest.mark.parametrize("samples", [2, 5])
def test_a_seed_is_a_text_at_any_batch_size(samples: int) -> None:
    alone = Stage(babble).play(seed=11)
    assert Stage(babble).play(seed=11, samples=samples).text(0) == alone.text()
    assert Stage(babble).play(seed=12).text() != alone.text()


# Log-probabilities


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.7, "top_k": 5, "repetition_penalty": 1.5}])
@pytest.mark.parametrize("alternatives", [0, 1, 3, VOCAB + 9])
def test_logprobs_are_those_of_the_raw_distribution(alternatives: int, options: dict[str, Any]) -> None:
    from scipy.special import log_softmax

    played = Stage(babble).play(seed=1, logprobs=alternatives, **options)
    read: tuple[int, ...] = (ord("P"),)
    assert len(played.tokens()) == played.finished[0].token_count
    for token in played.tokens():
        logits = babble(read)
        expected = log_softmax(logits)
        assert token.score.logprob == pytest.approx(expected[token.score.id])
        best = sorted(range(VOCAB), key=lambda one, logits=logits: (-logits[one], one))[:alternatives]  # type: ignore[misc]
        assert [one.id for one in token.alternatives] == best
        assert [one.logprob for one in token.alternatives] == pytest.approx(expected[best].tolist())
        read = (*read, token.score.id)


def test_tokens_come_with_the_text_they_became() -> None:
    played = Stage(speak("a😀")).play(temperature=0, logprobs=0)
    pieces = [(event.text, [token.score.id for token in event.tokens]) for event in played if isinstance(event, Piece)]
    assert pieces == [("a", [97]), ("😀", [*"😀".encode()]), ("", [END])]
    assert played.tokens()[0].score.text == "a"
    assert played.tokens()[-1].score.text == "<end>"


def test_without_logprobs_there_are_no_tokens() -> None:
    assert Stage(speak("ab")).play(temperature=0).tokens() == []


# What fits


@pytest.mark.parametrize(("length", "over"), [(10, 1), (13, 4)])
@pytest.mark.parametrize("overflow", ["error", "shrink"])
def test_a_prompt_that_does_not_fit(length: int, over: int, overflow: str) -> None:
    stage = Stage(babble, context=10)
    with pytest.raises(CapacityError, match=f"^the prompt has {length} tokens, the model's context is 10$") as caught:
        stage.play("x" * length, overflow=overflow)
    assert caught.value.exit_code == 5
    assert caught.value.hint == f"shorten it by {over} tokens or more, or use --overflow truncate-left"
    assert not stage.sessions


@pytest.mark.parametrize(("length", "new"), [(4, 6), (9, 1), (1, 9)])
def test_the_context_is_used_to_its_end(length: int, new: int) -> None:
    """The text fills the context exactly, without a note; the session refuses one more id."""
    played = Stage(always(ord("x")), context=10).play("P" * length, temperature=0, max_new_tokens=new)
    assert (played.text(), played.notes, played.started.max_new_tokens) == ("x" * new, [], new)


@pytest.mark.parametrize(
    ("asked", "environment", "model", "noted"),
    [
        ({"max_new_tokens": 50}, {}, {}, True),
        ({}, {"TGEN_MAX_NEW_TOKENS": "50"}, {}, True),
        ({}, {}, {"max_new_tokens": 50}, False),
        ({}, {}, {}, False),
        ({"max_new_tokens": 50, "overflow": "shrink"}, {}, {}, False),
        ({"max_new_tokens": 7}, {}, {}, True),
        ({"max_new_tokens": 6}, {}, {}, False),
    ],
)
def test_fewer_new_tokens_are_noted_only_if_more_were_asked_for(
    asked: dict[str, Any], environment: dict[str, str], model: dict[str, Any], noted: bool
) -> None:
    stage = Stage(always(ord("x")), context=10)
    events = list(stage.generator.run("four", resolve({**asked, "temperature": 0}, environment, model)))
    wanted = asked.get("max_new_tokens", 50)
    expected = [f"--max-new-tokens {wanted} is more than fits: prompt 4 + new 6 = context 10"] if noted else []
    assert [event.text for event in events if isinstance(event, Note)] == expected
    assert sum(event.token_count for event in events if isinstance(event, Finished)) == 6


@pytest.mark.parametrize(
    ("prompt", "starts", "new", "read", "dropped"),
    [
        ("abcdefghijkl", False, 3, b"fghijkl", 5),
        ("abcdefghijkl", True, 3, [START, *b"ghijkl"], 6),
        ("abcdefghijkl", False, 256, b"hijkl", 7),  # half the context is the prompt's
        ("abcdefgh", False, 3, b"bcdefgh", 1),
        ("abcdefg", False, 3, b"abcdefg", 0),
        ("abc", False, 256, b"abc", 0),
        ("abc", True, 6, [START, *b"abc"], 0),
    ],
)
def test_truncate_left(prompt: str, starts: bool, new: int, read: Any, dropped: int) -> None:
    stage = Stage(always(ord("x")), context=10, starts=starts, start_token=START if starts else None)
    events = list(stage.generator.run(prompt, resolve({"overflow": "truncate-left", "temperature": 0}, {}, {"max_new_tokens": new})))
    assert calls(stage, "extend")[0] == [[*read]]
    note = f"the prompt's first {dropped} of {len(prompt) + starts} tokens were left out to fit the context of 10"
    assert [event.text for event in events if isinstance(event, Note)] == ([note] if dropped else [])
    assert sum(event.token_count for event in events if isinstance(event, Finished)) == min(new, 10 - len(read))


def test_notes_come_before_anything_is_shown() -> None:
    played = Stage(babble, context=10).play("abcdefghijkl", overflow="truncate-left", max_new_tokens=3)
    assert [type(event) for event in played][:2] == [Note, Started]


def test_an_empty_prompt_is_the_start_token() -> None:
    stage = Stage(speak("hi", after=" "), start_token=START)
    assert stage.play("", temperature=0).text() == "hi"
    assert calls(stage, "extend")[0] == [[START]]


def test_an_empty_prompt_without_a_start_token() -> None:
    with pytest.raises(UsageError, match="prompt is empty"):
        Stage(babble).play("")


def test_a_start_token_is_not_added_twice() -> None:
    stage = Stage(babble, start_token=START, starts=True)
    stage.play("hi", max_new_tokens=1)
    assert calls(stage, "extend")[0] == [[START, *b"hi"]]


# Defaults and imports


def test_no_sequence_is_completed_twice_unless_asked_otherwise() -> None:
    best_first = np.full(VOCAB, -50.0)
    best_first[[*b"abc"]] = [3, 2, 1]
    stage = Stage(lambda _: best_first, defaults={"no_repeat_ngram_size": 2})
    for size, text in (None, "aabaca"), (3, "aaabaa"), (0, "aaaaaa"):
        assert stage.play(temperature=0, max_new_tokens=6, no_repeat_ngram_size=size).text() == text


def test_the_models_defaults_hold_unless_asked_otherwise() -> None:
    stage = Stage(speak("abcdef"), defaults={"do_sample": False, "max_new_tokens": 2})
    assert stage.play().text() == "ab"
    assert stage.play(max_new_tokens=3).text() == "abc"


def test_the_engine_imports_no_tensor_framework() -> None:
    modules = ["sampling.sampler", "text.stopping", "executors.session", "engine.scheduler", "engine.generator", "engine.opening"]
    program = (
        "import importlib, json, sys\n"
        "def heavy(module):\n"
        "    importlib.import_module(f'tgen.{module}')\n"
        "    return [name for name in ('torch', 'tokenizers', 'rich', 'typer') if name in sys.modules]\n"
        "print(json.dumps({module: heavy(module) for module in sys.argv[1:]}))"
    )
    result = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == {module: [] for module in modules}


@pytest.mark.parametrize("use", [lambda stage: stage.play(wish=1), lambda stage: stage.generator.generate("P", wish=1)])
def test_an_unknown_option_is_a_programming_error(use: Callable[[Stage], object]) -> None:
    with pytest.raises(TypeError, match="wish"):
        use(Stage(babble))


def blocks(stage: Stage) -> list[int]:
    """How many ids each call reads of its first row."""
    return [len(rows[0]) for session in stage.sessions for rows in session.read]


def test_a_long_prompt_is_read_in_chunks() -> None:
    prompt = "P" * (2 * CHUNK + 10)
    stage = Stage(speak("abc", after=prompt))
    played = stage.play(prompt, samples=2)
    assert [played.text(0), played.text(1)] == ["abc", "abc"]
    assert blocks(stage) == [CHUNK, CHUNK, 10, 1, 1, 1]
    events = list(played)
    assert events[:2] == [Reading(CHUNK, len(prompt)), Reading(2 * CHUNK, len(prompt))]
    assert isinstance(events[2], Started)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_chunks_are_the_prompt(length: int) -> None:
    stage = Stage(always(END), context=2000)
    prompt = [number % 200 for number in range(length)]
    list(stage.generator.run(prompt, stage.generator.resolve({})))
    assert [token for rows in stage.sessions[0].read for token in rows[0]] == prompt
    assert max(blocks(stage)) <= CHUNK


def test_reading_can_be_cancelled() -> None:
    stage = Stage(speak("abc"))
    generator = stage.generator
    events = list(generator.stream("P" * 3 * CHUNK, cancelled=lambda: len(stage.sessions[0].read) == 2, samples=2))
    assert blocks(stage) == [CHUNK, CHUNK]
    played = Played(events)
    assert {index: event.reason for index, event in played.finished.items()} == {0: "cancelled", 1: "cancelled"}
    assert played.started.prompt_tokens == 3 * CHUNK
    assert not any(isinstance(event, Piece) for event in events)


def test_a_memory_reads_only_what_is_new_in_chunks() -> None:
    stage = Stage(always(END), context=2000)
    generator = stage.generator
    prefix = Prefix(generator.executor)
    first, second = "P" * 300, "P" * 300 + "Q" * (CHUNK + 50)
    for prompt in (first, second):
        events = list(generator.run(prompt, generator.resolve({}), prefix=prefix))
    assert blocks(stage) == [CHUNK, 300 - CHUNK, CHUNK, 50]
    assert [event for event in events if isinstance(event, Reading)] == [Reading(300 + CHUNK, len(second))]
    assert Played(events).started.cached_tokens == 300
