"""From states to a vector, and which settings of a sentence-transformers folder are kept or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tgen.errors import CheckpointError, TgenError, UnsupportedError, UsageError
from tgen.options import Pooling
from tgen.sampling.logits import NumericalError
from tgen.tasks.embedding import Dense, Steps, pool
from tgen.tasks.sentence_folder import SentenceSettings, folder_settings

STATES = np.array([[3, 4], [1, 0], [-1, 2]], dtype=np.float32)
TRANSFORMER, POOLING, NORMALIZE = ({"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize"))
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
POOLINGS: tuple[Pooling, ...] = ("first", "max", "mean", "sqrt", "weighted", "last")
FILES = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json")


def folder(path: Path, modules: Any = None, pooling: Any = None, reading: Any = None, prompts: Any = None) -> Path:
    (path / "1_Pooling").mkdir(exist_ok=True)
    for name, value in zip(FILES, (modules, pooling, reading, prompts), strict=True):
        (path / name).unlink(missing_ok=True)
        if value is not None:
            (path / name).write_text(json.dumps(value))
    return path


def settings_of(*poolings: Pooling, length: bool = False, **others: Any) -> SentenceSettings:
    return SentenceSettings(Steps(poolings or ("mean",), ("normalize",) if length else ()), **others)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [1, 2]),
        ("first", [3, 4]),
        ("last", [-1, 2]),
        ("max", [3, 4]),
        ("weighted", [(3 + 2 - 3) / 6, (4 + 6) / 6]),
        ("sqrt", [3**0.5, 2 * 3**0.5]),
    ],
)
def test_pool(pooling: Pooling, expected: list[float]) -> None:
    assert pool(STATES, pooling) == pytest.approx(expected)
    assert Steps((pooling,)).vector(STATES) == pytest.approx(expected)
    assert Steps((pooling,)).vector(STATES[:0]).tolist() == [0, 0]


def test_steps_in_their_order() -> None:
    assert Steps(("first",), ("normalize",)).vector(STATES) == pytest.approx([0.6, 0.8])
    assert Steps(("mean",), ("normalize",)).vector(0 * STATES).tolist() == [0, 0]
    assert Steps(("first", "last")).vector(STATES).tolist() == [3, 4, -1, 2]
    weight, bias = np.array([[1, 1], [2, 0], [0, -1]], np.float32), np.array([0, -1, 0.5], np.float32)
    assert Steps(("mean",), (Dense(weight, bias),)).vector(STATES).tolist() == [3, 1, -1.5]
    assert Steps(("mean",), (Dense(weight, bias, "relu"),)).vector(STATES).tolist() == [3, 1, 0]
    assert Steps(("mean",), ("normalize", Dense(weight, None, "tanh"))).vector(STATES) == pytest.approx(
        np.tanh(np.array([3, 2, -2]) / 5**0.5)
    )
    assert Steps(("mean",), (Dense(weight),)).vector(STATES[:0]).tolist() == [0, 0, 0]
    with pytest.raises(NumericalError):
        Steps().vector(STATES + np.inf)


def test_a_prompts_tokens_may_not_count() -> None:
    """For the mean and the maximum; the first and the last token are themselves."""
    assert Steps(("mean",), include_prompt=False).vector(STATES, 1).tolist() == [0, 1]
    assert Steps(("max",), include_prompt=False).vector(STATES, 2).tolist() == [-1, 2]
    assert Steps(("max",), include_prompt=False).vector(STATES, 9).tolist() == [-1, 2]  # a cut text keeps one token
    assert Steps(("first",), include_prompt=False).vector(STATES, 1).tolist() == [3, 4]
    assert Steps(("mean",)).vector(STATES, 1).tolist() == [1, 2]


def test_length_as_asked() -> None:
    both = Steps(("mean",), ("normalize", "normalize"))
    assert both.with_length(None) == both
    assert both.with_length(False) == Steps(("mean",))
    assert Steps(("mean",)).with_length(True) == both.with_length(True) == Steps(("mean",), ("normalize",))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, settings_of()),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}, settings_of("first")),
        ({"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}}, settings_of("mean")),
        ({"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}}, settings_of("first", "mean")),
        ({"pooling": {"pooling_mode": "cls"}}, settings_of("first")),
        ({"pooling": {"pooling_mode": ["mean", "max"]}}, settings_of("max", "mean")),
        *(({"pooling": {f"pooling_mode_{mode}": True}}, settings_of(one)) for mode, one in zip(MODES, POOLINGS, strict=True)),
        ({"modules": [TRANSFORMER, POOLING, NORMALIZE]}, settings_of(length=True)),
        ({"modules": [TRANSFORMER, POOLING]}, settings_of()),
        ({"reading": {"max_seq_length": 128, "do_lower_case": True}}, settings_of(longest=128, lower=True)),
        ({"reading": {"max_seq_length": None, "do_lower_case": False}}, settings_of()),
        ({"prompts": {"prompts": {"query": "q: "}, "default_prompt_name": None}}, settings_of(prompts={"query": "q: "})),
    ],
)
def test_a_folders_settings(tmp_path: Path, settings: dict[str, Any], expected: SentenceSettings) -> None:
    assert folder_settings(folder(tmp_path, **settings)) == expected


def test_prompts_by_name(tmp_path: Path) -> None:
    found = folder_settings(folder(tmp_path, prompts={"prompts": {"query": "q: ", "text": ""}, "default_prompt_name": "query"}))
    assert [found.prompt(name) for name in (None, "query", "text")] == ["q: ", "q: ", ""]
    with pytest.raises(UsageError, match="no prompt named 'x'") as caught:
        found.prompt("x")
    assert caught.value.hint == "its prompts: query, text"
    assert SentenceSettings().prompt(None) == ""


def dense(path: Path, tensors: dict[str, np.ndarray], **config: Any) -> None:
    (path / "2_Dense").mkdir(exist_ok=True)
    (path / "2_Dense" / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "2_Dense" / "model.safetensors")


def test_a_dense_module(tmp_path: Path) -> None:
    weight, bias = np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([1, 0, 0], np.float32)
    made = folder(tmp_path, modules=[TRANSFORMER, POOLING, DENSE, NORMALIZE])
    dense(made, {"linear.weight": weight, "linear.bias": bias}, activation_function="torch.nn.modules.activation.Tanh")
    first, last = folder_settings(made).steps.then
    assert isinstance(first, Dense) and last == "normalize"
    assert first(np.array([1, 0], np.float32)) == pytest.approx(np.tanh([2, 3, 5]))
    dense(made, {"linear.weight": weight.astype(np.float16)}, activation_function="torch.nn.modules.linear.Identity")
    first = folder_settings(made).steps.then[0]
    assert isinstance(first, Dense) and first(np.array([1, 0], np.float32)).tolist() == [1, 3, 5]
    for tensors, config, error, words in (
        ({"linear.weight": weight}, {"activation_function": "x.Mish"}, UnsupportedError, "2_Dense/config.json: Mish is not implemented"),
        ({"weight": weight}, {}, CheckpointError, "does not hold one matrix"),
        ({"linear.weight": weight, "linear.bias": bias[:2]}, {}, CheckpointError, "does not hold one matrix"),
    ):
        dense(made, tensors, **config)
        with pytest.raises(error, match=words):
            folder_settings(made)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"pooling": {"pooling_mode_attention": True}}, UnsupportedError, "pooling_mode_attention is not implemented"),
        ({"pooling": {"pooling_mode": "attention"}}, UnsupportedError, "attention is not implemented"),
        ({"modules": [TRANSFORMER, {"type": "sentence_transformers.models.CNN"}]}, UnsupportedError, "CNN is not implemented"),
        ({"modules": [{**DENSE, "path": "../x"}]}, CheckpointError, "lies outside the folder"),
        ({"modules": [{**DENSE, "path": "nowhere"}]}, CheckpointError, "no folder .*nowhere"),
        ({"modules": [{**DENSE, "path": 3}]}, CheckpointError, "not a list of modules"),
        ({"modules": {"type": "x"}}, CheckpointError, "not a list of modules"),
        ({"modules": [{}]}, CheckpointError, "not a list of modules"),
        ({"reading": {"max_seq_length": 1}}, CheckpointError, "max_seq_length = 1"),
        ({"reading": {"max_seq_length": "128"}}, CheckpointError, "max_seq_length = '128'"),
        ({"prompts": {"prompts": {"a": 1}}}, CheckpointError, "prompts is not an object of texts"),
        ({"prompts": {"prompts": {"a": "b"}, "default_prompt_name": "c"}}, CheckpointError, "default_prompt_name = 'c'"),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], error: type[TgenError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        folder_settings(folder(tmp_path, **settings))
    assert caught.value.hint


def test_what_is_asked_goes_before_a_folders_pooling(tmp_path: Path) -> None:
    made = folder(tmp_path, pooling={"pooling_mode_max_tokens": True}, modules=[NORMALIZE])
    assert folder_settings(made, "first") == settings_of("first", length=True)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "path", "pooling_mode", "prompts", "default_prompt_name"]), inner, max_size=3)
    ),
)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_hostile_files_are_never_more_than_a_message(tmp_path: Path, modules: Any, pooling: Any, reading: Any, prompts: Any) -> None:
    try:
        folder_settings(
            folder(tmp_path, modules, {"pooling_mode": pooling, "pooling_mode_x": reading}, {"max_seq_length": reading}, prompts)
        )
    except TgenError as error:
        assert error.hint
