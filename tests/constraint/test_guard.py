"""Constrained texts are valid and closed in time, whatever the model would rather write and however little room there is."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.constraint.test_spelling import sentencepiece_like
from tests.engine.scripted import END, VOCAB, Script, ScriptedExecutor, ScriptedSession, Stage, byte_tokenizer, only, speak
from tests.sweeps import sweep
from tgen.constraint.grammar import Grammar, Matcher, byte_vocabulary
from tgen.constraint.guard import Guards
from tgen.constraint.spelling import Spelling, read_spelling
from tgen.engine.generator import Generator
from tgen.errors import TgenError, UsageError
from tgen.options import GenerationOptions, resolve
from tgen.sampling.sampler import Sampler
from tgen.values import read_constraint

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/tree",
}
# Each has something that a search for the end could fall for.
SCHEMAS: dict[str, Any] = {
    "person": PERSON,
    "anything": True,
    "a tree": TREE,
    "recursion first": {
        "$defs": {
            "n": {
                "anyOf": [
                    {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], "additionalProperties": False},
                    {"const": "leaf"},
                ]
            }
        },
        "$ref": "#/$defs/n",
    },
    "a leaf by another name": {
        "$defs": {
            "n": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"again": {"$ref": "#/$defs/n"}},
                        "required": ["again"],
                        "additionalProperties": False,
                    },
                    {"type": "object", "properties": {"zero": {"type": "null"}}, "required": ["zero"], "additionalProperties": False},
                ]
            }
        },
        "$ref": "#/$defs/n",
    },
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "array", "items": PERSON, "minItems": 2}}, "required": ["b"]}},
        "required": ["a"],
    },
    "unequal branches": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "big"}, **{f"field{i}": {"type": "string", "minLength": 5} for i in range(6)}},
                "required": ["kind", *(f"field{i}" for i in range(6))],
            },
            {"type": "object", "properties": {"kind": {"const": "small"}}, "required": ["kind"]},
        ]
    },
    "enum": {"enum": ["a rather long choice", "short", {"x": [1, 2]}, 17, None]},
    "unicode": {
        "type": "object",
        "properties": {"naïve": {"enum": ["é", "日本語", "😀"]}},
        "required": ["naïve"],
        "additionalProperties": False,
    },
    "patterns": {
        "type": "object",
        "properties": {
            "mail": {"type": "string", "pattern": r"^[\w-]+@[\w-]+(\.[a-z]{2,3})$"},
            "mac": {"type": "string", "pattern": "([0-9a-f][0-9a-f](:|-)){3}([0-9a-f][0-9a-f])"},
        },
        "required": ["mail", "mac"],
    },
    "formats": {
        "type": "object",
        "properties": {
            "d": {"format": "date", "type": "string"},
            "u": {"format": "uuid", "type": "string"},
            "m": {"format": "email", "type": "string"},
        },
        "required": ["d", "u", "m"],
    },
    "numbers": {
        "type": "array",
        "prefixItems": [
            {"type": "integer", "minimum": 1000, "maximum": 1004},
            {"type": "number", "exclusiveMaximum": 1, "exclusiveMinimum": 0.5},
            {"type": "integer", "multipleOf": 37, "minimum": 30},
        ],
        "minItems": 3,
        "maxItems": 4,
    },
    "optional before required": {
        "type": "object",
        "properties": {**{f"o{i}": {"type": "object", "required": ["x", "y"]} for i in range(8)}, "last": {"type": "boolean"}},
        "required": ["last"],
    },
    "lengths": {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 4}, "minItems": 2, "maxItems": 3},
    "open names": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "null"}}, "minProperties": 1},
}

PIECES = [
    b'{"',
    b'":',
    b'",',
    b'":"',
    b'","',
    b'"}',
    b"[[",
    b"]]",
    b"the",
    b"name",
    b'"name',
    b"00",
    b"true",
    b"null",
    "é".encode(),
    b"{[",
    b'age":',
]
TOKENS = [*(bytes([byte]) for byte in range(256)), b"", *PIECES]
SPELLING = Spelling(TOKENS)
MERGED_END = 256


def opener(step: int) -> npt.NDArray[np.float32]:
    """Logits of a model that opens new things, and never ends anything."""
    del step
    logits = np.array([3.0 * sum(byte in b'{[,"' for byte in text) - 9.0 * sum(byte in b"}]" for byte in text) for text in TOKENS])
    logits[MERGED_END] = -30
    return logits.astype(np.float32)


def babbler(step: int) -> npt.NDArray[np.float32]:
    """Logits that mean nothing."""
    return np.random.default_rng(step).normal(0, 4, len(TOKENS)).astype(np.float32)


def nines(step: int) -> npt.NDArray[np.float32]:
    """Logits of a model that loves decimals."""
    del step
    return np.array([9.0 if text in (b"9", b".", b"0") else 0.0 for text in TOKENS], dtype=np.float32)


def write(guards: Guards, asked: dict[str, Any], budget: int, model: Callable[[int], Any], temperature: float = 1.0) -> tuple[str, int]:
    """The text of one sample, and how many tokens it took. It ends by itself, or the budget is used up."""
    constraint = read_constraint(asked)
    assert constraint is not None
    guard = guards.guard(constraint, [1], budget)
    sampler = Sampler(GenerationOptions(temperature=temperature, top_k=0, top_p=1), 5, 0, [1], guard=guard)
    written: list[int] = []
    while not sampler.finished:
        assert len(written) < budget
        token = sampler.draw(model(len(written)))
        written.append(token)
        if token == MERGED_END:
            break
    return b"".join(TOKENS[token] for token in written).decode(), len(written)


def least(guards: Guards, asked: dict[str, Any]) -> int:
    """The fewest tokens that the planner says it needs."""
    try:
        constraint = read_constraint(asked)
        assert constraint is not None
        guards.guard(constraint, [1], 1)
    except UsageError as error:
        found = re.search(r"at least (\d+) new tokens", error.message)
        assert found, error.message
        return int(found[1])
    return 1


@pytest.fixture(scope="module")
def guards() -> Guards:
    return Guards(SPELLING, frozenset([MERGED_END]))


@pytest.mark.parametrize("model", sweep([opener, babbler, nines], lambda model: model is not nines))
@pytest.mark.parametrize("name", SCHEMAS)
def test_json_is_valid_at_every_budget(guards: Guards, name: str, model: Callable[[int], Any]) -> None:
    schema = SCHEMAS[name]
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    fewest = least(guards, {"json_schema": schema})
    if fewest > 1:
        with pytest.raises(UsageError, match=f"at least {fewest} new tokens, --max-new-tokens is {fewest - 1}"):
            write(guards, {"json_schema": schema}, fewest - 1, model)
    for budget in (fewest, fewest + 1, fewest + 4, fewest * 3 // 2 + 6):
        text, used = write(guards, {"json_schema": schema}, budget, model, temperature=0 if budget % 2 else 1)
        assert used <= budget
        validator.validate(json.loads(text))


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("person", 7), ("anything", 1), ("recursion first", 6), ("unequal branches", 12), ("enum", 1), ("unicode", 10)],
)
def test_the_least_is_the_least(guards: Guards, name: str, tokens: int) -> None:
    assert least(guards, {"json_schema": SCHEMAS[name]}) == tokens


EXPRESSIONS = ["yes|no", "[a-z]{3} [0-9]+", "a*", r"\d{4}-\d{2}", "(ab|c){2,5}", "x+y?", "é+", "^(foo|barbaz)$", "a{40}|b{30}", "the name"]


@pytest.mark.parametrize("model", [opener, babbler])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_match_as_a_whole(guards: Guards, expression: str, model: Callable[[int], Any]) -> None:
    fewest = least(guards, {"regex": expression})
    for budget in range(fewest, fewest + 8):
        text, _ = write(guards, {"regex": expression}, budget, model)
        assert re.fullmatch(expression, text), text


CHOICES = ["yes", "no", "no, never", "name", "été", "a/b", "(.*)", "the name", "y"]


@pytest.mark.parametrize("model", [opener, babbler])
def test_a_choice_is_one_of_them(guards: Guards, model: Callable[[int], Any]) -> None:
    assert least(guards, {"choices": ["no, never", "the name", "été"]}) == 3
    for budget in range(1, 12):
        assert write(guards, {"choices": CHOICES}, budget, model)[0] in CHOICES


scalars = st.sampled_from(
    [
        {"type": "integer"},
        {"type": "string"},
        {"type": "null"},
        {"type": "number"},
        {"enum": ["a", 1]},
        {"type": "string", "pattern": "^x+y$"},
        {"type": "string", "minLength": 2},
        {"const": "é"},
        {"type": "boolean"},
        {"type": "integer", "minimum": 100},
    ]
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "name", "é"])
    objects = st.dictionaries(names, inner, max_size=3).flatmap(
        lambda properties: st.lists(st.sampled_from(sorted(properties) or ["a"]), unique=True).map(
            lambda required: {"type": "object", "properties": properties, "required": required}
        )
    )
    arrays = st.tuples(inner, st.integers(0, 2)).map(lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1]})
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    return objects | arrays | unions


@settings(deadline=None, derandomize=True, database=None, max_examples=20)
@given(st.recursive(scalars, containers, max_leaves=6), st.integers(0, 9), st.sampled_from([opener, babbler]))
def test_any_schema_is_kept(schema: Any, more: int, model: Callable[[int], Any]) -> None:
    guards = Guards(SPELLING, frozenset([MERGED_END]))
    budget = least(guards, {"json_schema": schema}) + more
    text, used = write(guards, {"json_schema": schema}, budget, model)
    assert used <= budget
    Draft202012Validator(schema).validate(json.loads(text))


# Masking alone, where there is room


class Unplanned:
    """A guard that masks, and turns nothing down."""

    def __init__(self, guard: Any) -> None:
        self.guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guard, name)

    def admits(self, token: int) -> bool:
        assert self.guard.admits(token), "there was room"
        return True


def test_with_room_the_text_is_that_of_plain_masking(guards: Guards) -> None:
    constraint = read_constraint({"json_schema": PERSON})
    assert constraint is not None

    def ids(wrap: Callable[[Any], Any]) -> Iterator[int]:
        sampler = Sampler(GenerationOptions(top_k=5), 11, 0, [1], guard=wrap(guards.guard(constraint, [1], 10_000)))
        for step in range(40):
            yield sampler.draw(np.where(np.arange(len(TOKENS)) == ord("."), -99, babbler(step)).astype(np.float32))

    assert list(ids(lambda guard: guard)) == list(ids(Unplanned))


def test_an_end_is_found_however_far_it_is(guards: Guards) -> None:
    schema = {"type": "string", "minLength": 500}
    text, used = write(guards, {"json_schema": schema}, 502, babbler)
    assert used <= 502
    Draft202012Validator(schema).validate(json.loads(text))


# One constraint, many requests


def test_another_budget_compiles_and_searches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    guards = Guards(SPELLING, frozenset([MERGED_END]))
    schema = {"json_schema": SCHEMAS["nested"]}
    fewest = least(guards, schema)
    constraint = read_constraint(schema)
    assert constraint is not None
    monkeypatch.setattr(Grammar, "matcher", lambda *_: pytest.fail("compiled again"))
    work = Work(monkeypatch)
    for budget in (fewest, fewest + 1, 2 * fewest, 1000, 1001):
        guards.guard(constraint, [1], budget)
    assert work.done == 0


def test_a_first_guard_with_room_is_little_work(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = read_constraint({"json_schema": SCHEMAS["optional before required"]})
    assert constraint is not None
    work = Work(monkeypatch)
    guards.guard(constraint, [1], 1000)
    assert work.done < 400


def test_a_plan_does_not_depend_on_earlier_requests() -> None:
    guards = Guards(SPELLING, frozenset([MERGED_END]))
    constraint = read_constraint({"json_schema": {"enum": [1234567891234, "a"]}})
    assert constraint is not None
    first = guards.guard(constraint, [1], 90).safe()
    assert guards.guard(constraint, [1], 3).safe() != first
    assert guards.guard(constraint, [1], 90).safe() == first


def test_threads_may_share_guards() -> None:
    asked = [{"json_schema": SCHEMAS[name]} for name in ("person", "nested", "patterns")] + [{"regex": "[a-z]{3,9} [0-9]+"}]
    jobs = [(each, budget) for budget in (90, 300, 91) for each in asked]
    alone = [write(Guards(SPELLING, frozenset([MERGED_END])), each, budget, babbler) for each, budget in jobs]
    shared = Guards(SPELLING, frozenset([MERGED_END]))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda job: write(shared, job[0], job[1], babbler), jobs)) == alone


# What is long, and how much work it may be


class Work:
    """Counts what costs time in a search: bytes taken and masks made by matchers, texts checked, and bytes spelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = 0
        for name in ("take", "fits", "ends", "allowed"):
            self._count(monkeypatch, Matcher, name, lambda *_: 1)
        self._count(monkeypatch, Spelling, "costs", lambda text, known=(0,): len(text) + 1 - len(known))

    def _count(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str, size: Callable[..., int]) -> None:
        call = getattr(kind, name)

        def counted(self_: Any, *arguments: Any) -> Any:
            self.done += size(*arguments)
            return call(self_, *arguments)

        monkeypatch.setattr(kind, name, counted)


LETTERS = "^[a-z]{1000}$"
INTEGERS = {"type": "array", "minItems": 150, "items": {"type": "integer"}}
WORDS = {"type": "string", "pattern": "[a-zA-Z0-9_-]{162}"}


@pytest.mark.parametrize(
    ("asked", "fewest", "most"),
    [
        ({"json_schema": {"type": "string", "pattern": LETTERS}}, 1002, 100_000),
        ({"regex": LETTERS}, 1000, 100_000),
        ({"json_schema": {"type": "array", "minItems": 600, "items": {"type": "integer"}}}, 1201, 40_000),
    ],
)
def test_the_least_of_a_long_text_is_soon_known(
    guards: Guards, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], fewest: int, most: int
) -> None:
    work = Work(monkeypatch)
    assert least(guards, asked) <= fewest
    assert work.done < most


@pytest.mark.parametrize("schema", [WORDS, INTEGERS])
@pytest.mark.parametrize("model", [babbler, opener])
def test_the_steps_of_a_long_text_are_little_work(
    guards: Guards, monkeypatch: pytest.MonkeyPatch, schema: Any, model: Callable[[int], Any]
) -> None:
    for budget in (least(guards, {"json_schema": schema}), 400):
        with monkeypatch.context() as patched:
            work = Work(patched)
            text, used = write(guards, {"json_schema": schema}, budget, model)
        assert used <= budget
        Draft202012Validator(schema).validate(json.loads(text))
        assert work.done < 150_000


def test_a_slow_clock_changes_no_text(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"json_schema": SCHEMAS[name]} for name in ("person", "patterns", "lengths")] + [{"regex": "[a-z]{300}"}]
    texts = [write(guards, each, 400, babbler) for each in asked]
    seconds = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    assert [write(guards, each, 400, babbler) for each in asked] == texts


@pytest.mark.parametrize(("asked", "text"), [({"regex": "(ab|é){2,3}"}, "abéab"), ({"json_schema": PERSON}, '{"name":"é","age":10}')])
def test_an_end_is_what_may_follow_and_end_there(asked: dict[str, Any], text: str) -> None:
    constraint = read_constraint(asked)
    assert constraint is not None
    start, written = Grammar(constraint).matcher(byte_vocabulary()), text.encode()
    for begin in range(len(written) + 1):
        for end in range(begin, len(written) + 1):
            after, part = start.copy(), written[begin:end]
            assert after.take(written[:begin])
            after, before = after.copy(), after
            assert before.ends(part) == (after.take(part) and after.accepting)


def test_a_schema_without_an_end_is_refused(guards: Guards) -> None:
    endless = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    with pytest.raises(UsageError, match="no end was found for any text"):
        write(guards, {"json_schema": endless}, 100, babbler)


def test_a_vocabulary_that_cannot_spell_it_is_refused() -> None:
    letters = Guards(Spelling([b"a", b"b", b""]), frozenset([2]))
    with pytest.raises(UsageError, match="vocabulary cannot spell"):
        write(letters, {"choices": ["c"]}, 100, babbler)
    with pytest.raises(UsageError, match="needs an end token"):
        Guards(Spelling([b"a"]), frozenset())


# Through the generator


def test_a_text_that_can_only_stop_stops() -> None:
    played = Stage(speak('{"name":"Ann","age":7} and more')).play(temperature=0, json_schema=PERSON)
    assert played.text() == '{"name":"Ann","age":7}'
    assert (played.finished[0].reason, played.finished[0].token_count) == ("stop", 22)


def test_the_model_decides_where_a_text_that_may_go_on_ends() -> None:
    played = Stage(speak("12")).play(temperature=0, json_schema={"type": "integer"})
    assert (played.text(), played.finished[0].reason, played.finished[0].token_count) == ("12", "stop", 3)
    played = Stage(speak("1234")).play(temperature=0, regex="[0-9]+", max_new_tokens=3)
    assert (played.text(), played.finished[0].reason, played.finished[0].token_count) == ("123", "stop", 3)


def noisy(read: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(list(read)).normal(0, 3, VOCAB)


def test_samples_are_constrained_each_by_itself() -> None:
    stage = Stage(noisy)
    played = stage.play(samples=5, seed=3, json_schema=PERSON, max_new_tokens=40)
    texts = [played.text(index) for index in range(5)]
    assert len(set(texts)) == 5
    for text in texts:
        Draft202012Validator(PERSON).validate(json.loads(text))
    assert {event.reason for event in played.finished.values()} == {"stop"}
    assert texts[0] == stage.play(seed=3, json_schema=PERSON, max_new_tokens=40).text()


@pytest.mark.parametrize(
    "rules",
    [
        {"suppress_tokens": [*range(256)]},
        {"bad_words_ids": [[ord("}")]], "no_repeat_ngram_size": 1},
        {"forced_eos_token_id": ord("x"), "begin_suppress_tokens": [ord("{")]},
        {"min_new_tokens": 200},
    ],
)
def test_the_constraint_goes_before_rules_of_the_folder(rules: dict[str, Any]) -> None:
    played = Stage(noisy, defaults=rules).play(seed=1, json_schema=PERSON, max_new_tokens=30)
    Draft202012Validator(PERSON).validate(json.loads(played.text()))
    assert Stage(noisy, defaults={"min_new_tokens": 9}).play(seed=1, choices=["no"]).text() == "no"


def test_rules_count_where_the_constraint_leaves_a_choice() -> None:
    stage = Stage(lambda _: np.where(np.arange(VOCAB) == ord("a"), 9.0, 0.0), defaults={"suppress_tokens": [ord("a")]})
    assert stage.play(regex="[ab]c", temperature=0).text() == "bc"


def test_penalties_and_filters_work_on_what_is_left() -> None:
    script: Script = lambda _: np.where(np.arange(VOCAB) == ord("a"), 1.0, 0.0)  # noqa: E731
    assert Stage(script).play(regex="[ab]{6}", temperature=0).text() == "aaaaaa"
    assert Stage(script).play(regex="[ab]{6}", temperature=0, frequency_penalty=0.6).text() == "aababa"
    assert Stage(script).play(regex="[ab]{6}", top_k=1, seed=1).text() == "aaaaaa"


def test_the_room_that_the_context_leaves_is_the_budget() -> None:
    assert json.loads(Stage(noisy, context=30).play("P" * 8, seed=1, json_schema=PERSON).text())["name"] is not None
    with pytest.raises(UsageError, match="needs at least 19 new tokens, --max-new-tokens is 18"):
        Stage(noisy, context=26).play("P" * 8, json_schema=PERSON)


def test_a_refusal_comes_before_any_event() -> None:
    stage = Stage(noisy)
    with pytest.raises(UsageError):
        next(iter(stage.generator.stream("P", json_schema={"not": {"enum": [1]}})))
    assert stage.sessions[0].calls == []


def test_an_answers_first_space_is_not_part_of_it() -> None:
    """SentencePiece writes a space before a text, and drops it when it reads the text."""
    tokenizer = sentencepiece_like()
    size = tokenizer.size()
    no = tokenizer.id_of("▁yes")

    def script(read: tuple[int, ...]) -> Any:
        return np.where(np.arange(size) == no, 9.0, 0.0) if len(read) < 2 else noisy(read)[:1].repeat(size)

    class Executor(ScriptedExecutor):
        """Its encoder reads a source, and makes nothing of it."""

        def open(self) -> ScriptedSession:
            session = super().open()
            admit = session.admit
            session.admit = lambda sources: admit([None] * len(sources))  # type: ignore[method-assign]
            return session

    executor = Executor(script)
    generator = Generator(executor, tokenizer, context=100, end_tokens=frozenset([1]), start_token=0, answer_start=0)
    assert generator.generate("x", choices=["yes", "no"], max_new_tokens=4) == "yes"
    for seed in range(10):
        assert re.fullmatch("(a|é|日){2}", generator.generate("x", regex="(a|é|日){2}", seed=seed, temperature=2.0))
        assert generator.generate("x", regex=" a| b", seed=seed, temperature=2.0, max_new_tokens=4) in (" a", " b")
    plain = Generator(executor, tokenizer, context=100, end_tokens=frozenset([1]), start_token=0)
    assert plain.generate("x", regex=" a| b", seed=1) in (" a", " b")
    assert plain.generate("x", choices=["yes", "no"], seed=1) in ("yes", "no")


# Options


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"regex": "a", "choices": ["b"]}, "--regex and --choices exclude each other"),
        ({"json_schema": {}, "regex": "b"}, "--json-schema and --regex exclude each other"),
        ({"regex": "a", "num_beams": 2}, "--regex and --num-beams exclude each other"),
        ({"json_schema": True, "stop": ("x",)}, "--json-schema and --stop exclude each other"),
        ({"choices": ["a"], "ignore_eos": True}, "--choices and --ignore-eos exclude each other"),
        ({"choices": []}, "--choices must not be empty"),
        ({"choices": ["a", ""]}, "--choices must not be empty"),
        ({"choices": "ab"}, "--choices must be a list of texts, not 'ab'"),
        ({"choices": [1]}, "--choices must be a list of texts"),
        ({"regex": 1}, "--regex must be a text, not 1"),
        ({"json_schema": "{"}, "--json-schema is not JSON"),
        ({"json_schema": '{"minimum": NaN}'}, "--json-schema is not JSON: NaN is not a JSON value"),
        ({"json_schema": [1]}, "--json-schema must be a JSON object, or true"),
        ({"json_schema": {"const": float("nan")}}, "--json-schema cannot be written as JSON"),
        ({"json_schema": {"const": object()}}, "--json-schema cannot be written as JSON"),
        ({"constraint": "a"}, "the constraint must be a Constraint"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(TgenError) as refused:
        resolve(asked, {}, {})
    assert refused.value.message.startswith(message)
    assert refused.value.exit_code == 2


def test_a_constraint_goes_before_the_folders_beams() -> None:
    settled = resolve({"choices": ["a"]}, {}, {"num_beams": 4})
    assert settled.options.num_beams == 1
    assert settled.options.constraint is not None
    assert (settled.options.constraint.flag, settled.options.constraint.text) == ("--choices", '["a"]')


def test_spelling_of_the_scripted_tokenizer() -> None:
    assert read_spelling(byte_tokenizer(), VOCAB).tokens[:256] == [bytes([byte]) for byte in range(256)]
    assert only(END)[END] == 60
