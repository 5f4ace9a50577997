"""Options: ranges, precedence and origins, and one clear message for each value that cannot be meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgen.errors import TgenError, UsageError
from tgen.options import DECLARED, GenerationOptions, RunOptions, check_early, resolve
from tgen.values import CONSTRAINTS

steady = settings(deadline=None, derandomize=True, database=None, max_examples=200)
# What JSON can hold, and a little more.
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
ENVIRONMENT = [name for name, option in DECLARED.items() if option.environment]
every_option = sorted(GenerationOptions.__dataclass_fields__)

BAD = [
    ("max_new_tokens", 0, "--max-new-tokens must be 1 or more, not 0"),
    ("max_new_tokens", 2.5, "--max-new-tokens must be a whole number, not 2.5"),
    ("temperature", -0.5, "--temperature must be 0 or more, not -0.5"),
    ("temperature", float("nan"), "--temperature must be a number, not nan"),
    ("temperature", float("inf"), "--temperature must be a number, not inf"),
    ("temperature", "hot", "--temperature must be a number, not 'hot'"),
    ("temperature", True, "--temperature must be a number, not True"),
    ("top_k", -1, "--top-k must be 0 or more, not -1"),
    ("top_k", 3.0, "--top-k must be a whole number, not 3.0"),
    ("top_p", 1.5, "--top-p must be between 0 and 1, not 1.5"),
    ("top_p", -0.5, "--top-p must be between 0 and 1, not -0.5"),
    ("top_p", [0.5], "--top-p must be a number, not [0.5]"),
    ("min_p", 2, "--min-p must be between 0 and 1, not 2"),
    ("repetition_penalty", 0, "--repetition-penalty must be above 0, not 0"),
    ("repetition_penalty", -1.5, "--repetition-penalty must be above 0, not -1.5"),
    ("no_repeat_ngram_size", -1, "--no-repeat-ngram-size must be 0 or more, not -1"),
    ("no_repeat_ngram_size", 2.5, "--no-repeat-ngram-size must be a whole number, not 2.5"),
    ("presence_penalty", float("-inf"), "--presence-penalty must be a number, not -inf"),
    ("frequency_penalty", "1", "--frequency-penalty must be a number, not '1'"),
    ("seed", -1, "--seed must be between 0 and 18446744073709551615, not -1"),
    ("seed", 2**64, "--seed must be between 0 and 18446744073709551615, not 18446744073709551616"),
    ("stop", ("a", ""), "--stop must not be empty"),
    ("stop", "###", "--stop must be a sequence of texts, not '###'"),
    ("stop", (1,), "--stop must be a sequence of texts, not (1,)"),
    ("ignore_eos", "no", "--ignore-eos must be true or false, not 'no'"),
    ("samples", 0, "--samples must be between 1 and 4096, not 0"),
    ("samples", 1.5, "--samples must be a whole number, not 1.5"),
    ("logprobs", -1, "--logprobs must be between 0 and 1000, not -1"),
    ("logprobs", 2.0, "--logprobs must be a whole number, not 2.0"),
    ("overflow", "drop", "--overflow must be one of error, truncate-left, shrink, not 'drop'"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
@pytest.mark.parametrize("take", [lambda values: GenerationOptions(**values), lambda values: check_early(values, {})])
def test_a_bad_value_is_named(take: Callable[[dict[str, object]], object], name: str, value: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        take({name: value})
    assert caught.value.message == message


def test_none_is_a_value_only_where_it_means_something() -> None:
    assert GenerationOptions(seed=None, logprobs=None) == GenerationOptions()
    with pytest.raises(UsageError, match="--temperature must be a number, not None"):
        GenerationOptions(temperature=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_new_tokens", [1, 10**9]),
        ("temperature", [0, 0.0, 2, 1e9]),
        ("top_k", [0, 10**9]),
        ("top_p", [0, 0.5, 1, 1.0]),
        ("min_p", [0, 1]),
        ("repetition_penalty", [0.1, 1, 2]),
        ("no_repeat_ngram_size", [0, 8]),
        ("presence_penalty", [-2, 0, 2.5]),
        ("seed", [None, 0, 2**64 - 1]),
        ("stop", [(), ("a", "b"), ["a"]]),
        ("samples", [1, 4096]),
        ("logprobs", [None, 0, 1000]),
        ("overflow", ["error", "truncate-left", "shrink"]),
    ],
)
def test_the_edges_of_every_range_are_inside(name: str, values: list[Any]) -> None:
    for value in values:
        assert getattr(GenerationOptions(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, mps, not 'tpu'"),
        ({"dtype": "int3"}, "--dtype must be one of auto, float32, bfloat16, float16, not 'int3'"),
        ({"executor": "jax"}, "--executor must be one of auto, native, torch, not 'jax'"),
        ({"threads": 0}, "--threads must be between 1 and 4096, not 0"),
        ({"threads": 1.5}, "--threads must be a whole number, not 1.5"),
    ],
)
def test_run_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunOptions(**values)
    assert caught.value.message == message


def test_precedence() -> None:
    """Each source is overruled by the one before it, option by option."""
    model = {"temperature": 0.1, "top_k": 1, "top_p": 0.1}
    environment = {"TGEN_TEMPERATURE": "0.2", "TGEN_TOP_K": "2", "HOME": "/", "TGEN_MODEL": "x"}
    resolved = resolve({"temperature": 0.3, "min_p": None}, environment, model)
    options, origins = resolved.options, resolved.origins
    assert (options.temperature, options.top_k, options.top_p, options.min_p) == (0.3, 2, 0.1, 0.0)
    assert [origins[name] for name in ("temperature", "top_k", "top_p", "min_p")] == ["asked", "environment", "model", "built-in"]
    assert sorted(origins) == every_option


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_every_environment_variable(name: str) -> None:
    choices = DECLARED[name].choices
    resolved = resolve({}, {f"TGEN_{name.upper()}": choices[1] if choices else "1"}, {})
    assert (getattr(resolved.options, name), resolved.origins[name]) == (choices[1] if choices else 1, "environment")
    assert resolve({}, {f"TGEN_{name.upper()}": ""}, {}).origins[name] == "built-in"


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("TGEN_TOP_K", "many", "it is not a whole number"),
        ("TGEN_TOP_K", "1.5", "it is not a whole number"),
        ("TGEN_TEMPERATURE", "warm", "it is not a number"),
        ("TGEN_TEMPERATURE", "nan", "--temperature must be a number, not nan"),
        ("TGEN_TEMPERATURE", "1e999", "--temperature must be a number, not inf"),
        ("TGEN_TOP_P", "2", "--top-p must be between 0 and 1, not 2.0"),
        ("TGEN_SEED", "-1", "--seed must be between 0 and 18446744073709551615, not -1"),
        ("TGEN_SEED", "9" * 5000, "it is not a whole number"),
    ],
)
def test_a_bad_environment_variable_is_named(variable: str, text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_early({}, {variable: text})
    assert caught.value.message == f"the environment sets {variable}={text!r}: {reason}"
    assert caught.value.hint == f"unset {variable}, or give it another value"


@steady
@given(st.dictionaries(st.sampled_from([*every_option, *CONSTRAINTS]), hostile))
def test_hostile_values_are_refused_in_one_way(asked: dict[str, Any]) -> None:
    try:
        options = resolve(asked, {}, {}).options
    except TgenError as error:
        assert error.message
    else:
        assert options.temperature >= 0
        assert all(isinstance(text, str) for text in options.stop)


@steady
@given(
    st.dictionaries(
        st.sampled_from([f"TGEN_{name.upper()}" for name in ENVIRONMENT]), st.text(max_size=6) | st.from_regex(r"-?\d+\.?\d*e?\d*")
    )
)
def test_any_environment_is_taken_or_refused(environment: dict[str, str]) -> None:
    try:
        check_early({}, environment)
    except UsageError as error:
        assert error.hint


@steady
@given(st.dictionaries(st.sampled_from(["device", "dtype", "threads"]), hostile))
def test_hostile_run_options(values: dict[str, Any]) -> None:
    try:
        RunOptions(**values)
    except UsageError as error:
        assert error.message
