"""From states to a vector, and which settings of a sentence-transformers folder are kept or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgen.errors import CheckpointError, TgenError, UnsupportedError
from tgen.sampling.logits import NumericalError
from tgen.tasks.embedding import VectorSettings, folder_settings, pool

STATES = np.array([[3, 4], [1, 0], [-1, 2]], dtype=np.float32)
TRANSFORMER, POOLING, NORMALIZE = ({"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize"))


def folder(path: Path, modules: Any = None, pooling: Any = None, reading: Any = None) -> Path:
    (path / "1_Pooling").mkdir(exist_ok=True)
    for name, value in (("modules.json", modules), ("1_Pooling/config.json", pooling), ("sentence_bert_config.json", reading)):
        (path / name).unlink(missing_ok=True)
        if value is not None:
            (path / name).write_text(json.dumps(value))
    return path


def test_pool() -> None:
    assert pool(STATES, "mean", normalize=False).tolist() == [1, 2]
    assert pool(STATES, "first", normalize=False).tolist() == [3, 4]
    assert pool(STATES, "first", normalize=True) == pytest.approx([0.6, 0.8])
    assert pool(STATES[:0], "mean", normalize=True).tolist() == pool(STATES[:0], "first", normalize=False).tolist() == [0, 0]
    assert pool(0 * STATES, "mean", normalize=True).tolist() == [0, 0]
    with pytest.raises(NumericalError):
        pool(STATES + np.inf, "mean", normalize=False)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, VectorSettings()),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}, VectorSettings("first")),
        ({"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}}, VectorSettings("mean")),
        ({"pooling": {"pooling_mode": "cls"}}, VectorSettings("first")),
        ({"modules": [TRANSFORMER, POOLING, NORMALIZE]}, VectorSettings(normalize=True)),
        ({"modules": [TRANSFORMER, POOLING]}, VectorSettings()),
        ({"reading": {"max_seq_length": 128, "do_lower_case": True}}, VectorSettings(longest=128, lower=True)),
        ({"reading": {"max_seq_length": None, "do_lower_case": False}}, VectorSettings()),
    ],
)
def test_a_folders_settings(tmp_path: Path, settings: dict[str, Any], expected: VectorSettings) -> None:
    assert folder_settings(folder(tmp_path, **settings)) == expected


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"pooling": {"pooling_mode_max_tokens": True}}, UnsupportedError, "pooling_mode_max_tokens is not implemented"),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, UnsupportedError, "is not implemented"),
        ({"pooling": {"pooling_mode": "lasttoken"}}, UnsupportedError, "lasttoken is not implemented"),
        ({"modules": [TRANSFORMER, {"type": "sentence_transformers.models.Dense"}]}, UnsupportedError, "Dense is not implemented"),
        ({"modules": {"type": "x"}}, CheckpointError, "not a list of modules"),
        ({"modules": [{}]}, CheckpointError, "not a list of modules"),
        ({"reading": {"max_seq_length": 1}}, CheckpointError, "max_seq_length = 1"),
        ({"reading": {"max_seq_length": "128"}}, CheckpointError, "max_seq_length = '128'"),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], error: type[TgenError], words: str) -> None:
    with pytest.raises(error, match=words):
        folder_settings(folder(tmp_path, **settings))


def test_what_is_asked_goes_before_a_pooling_that_is_not_implemented(tmp_path: Path) -> None:
    made = folder(tmp_path, pooling={"pooling_mode_max_tokens": True}, modules=[NORMALIZE])
    assert folder_settings(made, "first") == VectorSettings("first", normalize=True)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "pooling_mode"]), inner, max_size=3),
)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_hostile_files_are_never_more_than_a_message(tmp_path: Path, modules: Any, pooling: Any, reading: Any) -> None:
    try:
        folder_settings(folder(tmp_path, modules, {"pooling_mode": pooling, "pooling_mode_x": reading}, {"max_seq_length": reading}))
    except TgenError as error:
        assert error.hint
