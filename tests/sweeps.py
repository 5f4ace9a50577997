"""Sweeps over everything of one sort: a few of its members are tested in every run, the rest with the tests that are marked `long`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

# One golden of each kind of transformer: what is written once for all families shows a mistake with one of these.
KINDS = frozenset("bart bert deepseek_v3 gemma3n gpt2 gpt_oss llama3 mamba2 marian qwen2_vl t5".split())


def turns(names: Sequence[str], values: Sequence[Any]) -> frozenset[tuple[str, Any]]:
    """Each name with one of the values in turn: pairs that show every value often, and every name."""
    return frozenset((name, values[place % len(values)]) for place, name in enumerate(names))


def sweep(values: Iterable[Any], always: Callable[[Any], bool]) -> list[Any]:
    """The values for `pytest.mark.parametrize`, of which those for which `always` is false are marked `long`.

    A tuple is one value for each of several parameters.
    """
    return [
        value if always(value) else pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.long)
        for value in values
    ]
