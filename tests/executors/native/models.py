"""The models of these tests, on the native executor and on torch."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DECODERS, ENCODERS, GOLDEN, config_of, golden_model
from tests.sweeps import KINDS, sweep, turns
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.library import kernels, load
from tgen.executors.native.open import open_executor, supports
from tgen.executors.native.session import NativeExecutor, NativeSession
from tgen.executors.torch.load import load_model
from tgen.executors.torch.save import save_weights
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.options import RunOptions
from tgen.spec.records import ExpertsSpec, ModelSpec

LIBRARY = load().library
if LIBRARY is None:
    pytest.skip(f"no native library: {load().problem}", allow_module_level=True)
KERNELS = list(kernels(LIBRARY))
DTYPES = ("float32", "bfloat16", "float16", "int8", "int4")

# Sizes that fill no register, and more than one register, of any kernel; of the goldens' configs, the keys to change.
ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "odd_llama": ("llama3", {"hidden_size": 100, "head_dim": 26, "intermediate_size": 131, "vocab_size": 301}),
    "odd_wide_heads": ("qwen3", {"hidden_size": 65, "head_dim": 150, "intermediate_size": 33, "vocab_size": 97}),
    "odd_gemma": ("gemma2", {"hidden_size": 36, "head_dim": 10, "intermediate_size": 97, "vocab_size": 33, "sliding_window": 21}),
    "odd_olmo": ("olmo2", {"hidden_size": 72, "intermediate_size": 45, "vocab_size": 113}),
    "odd_t5": ("t5", {"d_model": 40, "d_kv": 13, "num_heads": 3, "d_ff": 71, "vocab_size": 115}),
    "odd_marian": ("marian", {"d_model": 76, "decoder_ffn_dim": 35, "encoder_ffn_dim": 130}),
    "odd_umt5": ("umt5", {"d_model": 44, "d_kv": 11, "num_heads": 3, "d_ff": 37}),
    "odd_m2m_100": ("m2m_100", {"d_model": 68, "decoder_ffn_dim": 35, "encoder_ffn_dim": 130}),
    "odd_bert": ("bert", {"hidden_size": 68, "intermediate_size": 131}),
}
PLACE = tempfile.TemporaryDirectory(prefix="odd-models-", ignore_cleanup_errors=True)


@functools.cache
def folder_of(name: str) -> Path:
    """A golden's folder, or that of an odd model, whose every number is random."""
    if name not in ODD:
        return GOLDEN / name
    golden, changes = ODD[name]
    config = {**config_of(golden), **changes, "max_position_embeddings": 2048, "n_positions": 2048, "tie_word_embeddings": True}
    config = {key: value for key, value in config.items() if key in config_of(golden) and key != "decoder_vocab_size"}
    model = Transformer(find_family(config["model_type"]).spec(Config(config))).eval()
    random = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            parameter.normal_(0, 1.0 if key == "embedding.weight" else 0.7 * parameter.shape[-1] ** -0.5, generator=random)
    folder = Path(PLACE.name, name)
    folder.mkdir()
    save_weights(folder, config, model, torch.float32)
    return folder


@functools.cache
def spec_of(name: str) -> ModelSpec:
    return open_checkpoint(folder_of(name)).spec


def is_mixture(name: str) -> bool:
    """Whether some layers choose experts for each token, so that a rounded number may change the choice."""
    return any(isinstance(layer.feed_forward, ExpertsSpec) for stack in spec_of(name).stacks.values() for layer in stack.layers)


NATIVE = [name for name in DECODERS if supports(spec_of(name)) is None] + [name for name in ODD if name != "odd_bert"]
LONE = [name for name in DECODERS if name not in ENCODERS]
READERS = [name for name in [*ENCODERS, *LONE] if supports(spec_of(name)) is None] + [
    "odd_t5",
    "odd_marian",
    "odd_umt5",
    "odd_m2m_100",
    "odd_bert",
]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_decoder = pytest.mark.parametrize("name", NATIVE)


def telling(name: str) -> bool:
    """Whether a model is tested on every kernel and with every type in every run, since its sizes or its kind tell more than others."""
    return name in ODD or name in KINDS


def on_every_kernel(names: Sequence[str]) -> list[Any]:
    """Parameters: each model on each kernel. The fastest kernel always runs all of them."""
    return sweep(itertools.product(names, KERNELS), lambda one: one[1] == KERNELS[0] or telling(one[0]))


def in_every_type(types: Sequence[str], kernels: Sequence[str]) -> list[Any]:
    """Parameters: each decoder with each type on each kernel. The first kernel always runs each decoder with one of the types."""
    always = turns(NATIVE, types)
    return sweep(itertools.product(NATIVE, types, kernels), lambda one: telling(one[0]) or (one[2] == kernels[0] and one[:2] in always))


every_decoder_on_every_kernel = pytest.mark.parametrize(("name", "kernel"), on_every_kernel(NATIVE))


@functools.cache
def torch_model(name: str, dtype: torch.dtype = torch.float32) -> Transformer:
    if name not in ODD and dtype == torch.float32:
        return golden_model(name)
    torch.set_num_threads(1)
    return load_model(open_checkpoint(folder_of(name)), torch.device("cpu"), dtype)


@functools.cache
def executor(name: str, kernel: str = KERNELS[0], dtype: Any = "float32", threads: int = 2) -> NativeExecutor:
    """A model on a kernel, in one of DTYPES."""
    options = RunOptions(threads=threads, **{"quantize" if dtype in ("int8", "int4") else "dtype": dtype})
    return open_executor(open_checkpoint(folder_of(name)), options, kernel)


def texts_of(name: str, lengths: Sequence[int]) -> list[list[int]]:
    rng = np.random.default_rng(len(name))
    return [rng.integers(0, spec_of(name).vocab, length).tolist() for length in lengths]


def sources_of(name: str, rows: int) -> list[list[int] | None]:
    if spec_of(name).encoder is None:
        return [None] * rows
    return [*texts_of(name, [5 + 3 * row for row in range(rows)])]


def opened(of: NativeExecutor, sources: Sequence[Sequence[int] | None]) -> NativeSession:
    session = of.open()
    session.admit(sources)
    return session


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
