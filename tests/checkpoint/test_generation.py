"""A folder's settings from generation_config.json, or from config.json without that file; and errors for bad values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.generation import (
    NOT_HONOURED,
    SETTINGS,
    GenerationConfig,
    not_honoured,
    parse_generation,
    read_generation,
    start_token,
)
from tgen.errors import CheckpointError
from tgen.options import FROM_MODEL, resolve

VOCAB = 8
CopyGolden = Callable[[str], Path]


def options(generation: dict[str, Any], *, answers: bool = False) -> dict[str, int | float]:
    return dict(parse_generation(generation, VOCAB, answers=answers).options)


def test_an_empty_folder_sets_nothing() -> None:
    assert parse_generation({}, VOCAB) == GenerationConfig()
    assert parse_generation(dict.fromkeys(SETTINGS), VOCAB) == GenerationConfig()


@pytest.mark.parametrize("name", FROM_MODEL)
def test_every_option_that_a_folder_may_set(name: str) -> None:
    resolved = resolve({}, {}, options({name: 1, "do_sample": True, "unknown": "x", "seed": 5}))
    assert (getattr(resolved.options, name), resolved.origins[name]) == (1, "model")
    assert (resolved.options.seed, resolved.origins["seed"]) == (None, "built-in")


def test_a_folder_that_does_not_sample_is_greedy() -> None:
    model = {"do_sample": False, "temperature": 0.6, "top_k": 5, "repetition_penalty": 1.1, "max_new_tokens": 9, "num_beams": 3}
    assert options(model) == {"temperature": 0, "repetition_penalty": 1.1, "max_new_tokens": 9, "num_beams": 3}
    assert options({**model, "do_sample": True})["temperature"] == 0.6
    assert resolve({"temperature": 0.9}, {}, options(model)).options.temperature == 0.9


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, {"temperature": 0}),
        ({"temperature": 0.6}, {"temperature": 0}),
        ({"do_sample": True, "temperature": 0.6}, {"temperature": 0.6}),
        ({"max_length": 21}, {"temperature": 0, "max_new_tokens": 20}),
        ({"max_length": 1}, {"temperature": 0, "max_new_tokens": 1}),
        ({"max_length": 21, "max_new_tokens": 5}, {"temperature": 0, "max_new_tokens": 5}),
        ({"max_length": True}, {"temperature": 0}),
    ],
)
def test_an_answer_is_the_likeliest_unless_the_folder_samples(generation: dict[str, Any], expected: dict[str, float]) -> None:
    assert options(generation, answers=True) == expected
    assert "max_new_tokens" not in options({"max_length": 21})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.5),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("top_k", 3.0),
        ("top_p", 1.5),
        ("min_p", True),
        ("num_beams", 0),
        ("num_beams", 257),
        ("max_new_tokens", 0),
        ("repetition_penalty", 0),
        ("no_repeat_ngram_size", 2.5),
        ("max_length", 10**400),
        ("suppress_tokens", [VOCAB]),
        ("begin_suppress_tokens", ["1"]),
        ("forced_bos_token_id", True),
        ("forced_eos_token_id", {"a": 1}),
        ("bad_words_ids", "all of them"),
        ("bad_words_ids", [[[1]]]),
        ("min_length", -1),
        ("min_new_tokens", "2"),
        ("length_penalty", float("nan")),
        ("length_penalty", 51),
        ("early_stopping", "always"),
        ("renormalize_logits", "yes"),
        ("eos_token_id", -1),
        ("eos_token_id", [1, -1]),
        ("eos_token_id", "</s>"),
    ],
)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_value_that_cannot_be_used_is_named_with_its_file(key: str, value: Any, file: str) -> None:
    values = {"do_sample": True, key: value}
    with pytest.raises(CheckpointError, match=rf"^{file}: {key} = ") as caught:
        parse_generation(values if file == "generation_config.json" else {}, VOCAB, values, answers=True)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_every_setting_of_generation_config_goes_before_those_of_config() -> None:
    old = {"num_beams": 4, "min_length": 2, "eos_token_id": 5, "bos_token_id": 1, "hidden_size": 8, "temperature": None}
    found = parse_generation({}, VOCAB, old)
    assert (dict(found.options), found.min_length, found.end_tokens, found.start_token) == ({"num_beams": 4}, 2, frozenset([5]), 1)
    found = parse_generation({"num_beams": 2}, VOCAB, old)
    assert (dict(found.options), found.min_length, found.end_tokens, found.start_token) == ({"num_beams": 2}, 0, frozenset([5]), 1)


def test_start_and_end_tokens_of_a_folder(copy_golden: CopyGolden) -> None:
    """generation_config.json before config.json; neither is required, and a start token that is no id counts as none."""
    folder = copy_golden("qwen3")
    found = read_generation(open_checkpoint(folder))
    assert (found.start_token, found.end_tokens, start_token(open_checkpoint(folder))) == (0, frozenset([0]), 0)
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5], "bos_token_id": 288}')
    assert read_generation(open_checkpoint(folder)).end_tokens == frozenset([3, 5])
    (folder / "generation_config.json").write_text('{"eos_token_id": [288, 5]}')  # left over from a larger vocabulary
    assert start_token(open_checkpoint(folder)) == 0
    assert read_generation(open_checkpoint(folder)).end_tokens == frozenset([5])


def test_a_decoder_needs_its_start_token(copy_golden: CopyGolden) -> None:
    folder = copy_golden("marian")
    assert (
        read_generation(open_checkpoint(folder)).decoder_start == json.loads((folder / "config.json").read_text())["decoder_start_token_id"]
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "generation_config.json").write_text('{"decoder_start_token_id": 3}')
    assert read_generation(open_checkpoint(folder)).decoder_start == 3
    (folder / "generation_config.json").unlink()
    kept = {key: value for key, value in config.items() if key not in ("decoder_start_token_id", "bos_token_id")}
    (folder / "config.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match="has a decoder_start_token_id"):
        read_generation(open_checkpoint(folder))


def test_what_tgen_does_not_do_is_listed(copy_golden: CopyGolden) -> None:
    folder = copy_golden("llama3")
    for asked, expected in (dict.fromkeys(NOT_HONOURED, 2), NOT_HONOURED), (NOT_HONOURED, ()):
        (folder / "generation_config.json").write_text(json.dumps({"temperature": 1.0, **asked}))
        assert list(not_honoured(open_checkpoint(folder))) == list(expected)


hostile = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted([*SETTINGS, "eos_token_id", "bos_token_id"])), hostile), st.booleans())
def test_any_json_is_read_or_refused_by_name(generation: dict[str, Any], answers: bool) -> None:
    try:
        found = parse_generation(generation, VOCAB, answers=answers)
    except CheckpointError as error:
        assert any(f"{key} = " in error.message for key in generation)
    else:
        resolve({}, {}, found.options)
        ids = {
            *found.end_tokens,
            *found.suppressed,
            *found.suppressed_first,
            *found.forced_last,
            *(i for word in found.bad_words for i in word),
        }
        assert all(0 <= i < VOCAB for i in ids)
