"""What all tests share: the golden checkpoints, copies of them to damage, and their models."""

from __future__ import annotations

import functools
import gzip
import json
import lzma
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.executors.native.variants import choose
from tgen.families.config import Config
from tgen.families.nearest import unknown_family
from tgen.families.registry import FAMILIES, find_family
from tgen.spec.records import ModelSpec

if TYPE_CHECKING:
    from tests.fuzz.runner import Worker
    from tgen.executors.torch.transformer import Transformer

choose()
# No test reads or fills the user's own cache folder, or reads the user's settings.
CACHE = tempfile.TemporaryDirectory(prefix="tgen-test-cache-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = CACHE.name
os.environ.pop("TGEN_CONFIG", None)
# Hundreds of tests start `tgen`. Compiled once, its modules take a quarter less of each process's time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

GOLDEN = Path(__file__).parent / "golden"
GOLDENS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


def config_of(name: str) -> dict[str, Any]:
    """A golden's config.json."""
    values: dict[str, Any] = json.loads((GOLDEN / name / "config.json").read_text("utf-8"))
    return values


def spec_of(values: dict[str, Any]) -> ModelSpec:
    """The spec of a config.json, before the tensors have their say."""
    config = Config(values)
    if config.model_type not in FAMILIES:
        raise unknown_family(config, set())
    return find_family(config.model_type).spec(config)


DECODERS = [name for name in GOLDENS if spec_of(config_of(name)).decoder]
ENCODERS = [name for name in GOLDENS if spec_of(config_of(name)).encoder]


@functools.cache
def golden_model(name: str) -> Transformer:
    """A golden's model in float32. Shared: a test that changes it makes a copy first."""
    import torch

    from tgen.checkpoint.container import open_checkpoint
    from tgen.executors.torch.load import load_model

    torch.set_num_threads(1)
    return load_model(open_checkpoint(GOLDEN / name), torch.device("cpu"), torch.float32)


@functools.cache
def golden_reference(name: str) -> dict[str, np.ndarray]:
    """What transformers computed; `golden/make.py` says what the arrays are."""
    with np.load(GOLDEN / name / "golden.npz") as arrays:
        return dict(arrays)


def tokenizer_folder(kind: str) -> Path:
    """A golden tokenizer's folder as the hub would have it, unpacked and without what the tests expect of it."""
    place = Path(CACHE.name) / "tokenizers" / kind
    if not place.exists():
        shutil.copytree(GOLDEN / "tokenizers" / kind, place, ignore=shutil.ignore_patterns("expected.json.gz"))
        for packed in place.glob("*.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
    return place


def tokenizer_cases(kind: str) -> list[dict[str, Any]]:
    """Awkward texts, each as `text`, with the `ids` that the reference of a golden tokenizer gives for it."""
    cases: list[dict[str, Any]] = json.loads(gzip.decompress((GOLDEN / "tokenizers" / kind / "expected.json.gz").read_bytes()))
    return cases


@pytest.fixture
def copy_golden(tmp_path: Path) -> Callable[[str], Path]:
    """A function from a golden's name to a copy of its folder that the test may damage."""
    return lambda name: shutil.copytree(GOLDEN / name, tmp_path / name)


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """What runs whole command lines in processes that start at once."""
    if not sys.platform.startswith("linux"):
        pytest.skip("forks, and reads /proc")
    from tests.fuzz.runner import Worker

    with Worker(tmp_path_factory.mktemp("streams")) as worker:
        yield worker
