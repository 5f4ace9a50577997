"""What a run takes besides its weights, each in a process of its own, whose highest memory the system knows; and how memory is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.shapes import llama_like, write_folder
from tests.executors.native.models import every_kernel, executor
from tests.sweeps import sweep
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.forecast import forecast
from tgen.options import Dtype, Quantize, RunOptions

BESIDES = 24e6  # bytes of modules, of buffers and of the first pages of the cache
GPT2 = {"model_type": "gpt2", "n_embd": 512, "n_layer": 8, "n_head": 8, "vocab_size": 3000, "n_positions": 1024}
GPT2 |= {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
CHILD = """
import sys
from pathlib import Path
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.native.open import open_executor
from tgen.options import Dtype, Quantize, RunOptions
def peak():  # getrusage's begins with that of the process that started this one
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
session = open_executor(open_checkpoint(Path(sys.argv[1])), RunOptions(dtype=sys.argv[2], quantize=sys.argv[3])).open()
session.admit([None])
session.extend([[1, 2, 3]])
print(peak() - before)
"""


TYPES = [("auto", "none"), ("float32", "none"), ("float16", "none"), ("auto", "int8")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some 55 MB in bfloat16: one half are the embedding, or nearly all are stored with rows and columns exchanged."""
    place = tmp_path_factory.mktemp("models")
    write_folder(place / "llama", llama_like("llama", 512, 4, 8, 8, 1408, 30000))
    write_folder(place / "gpt2", GPT2)
    return {name: place / name for name in ("llama", "gpt2")}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages in other ways")
@pytest.mark.parametrize(
    ("name", "dtype", "quantize"),
    sweep([(name, *types) for name in ("llama", "gpt2") for types in TYPES], lambda one: one[0] == "llama" or one[1] == "float32"),
)
def test_a_run_takes_what_is_forecast_and_little_more(
    name: str, dtype: Dtype, quantize: Quantize, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source of a converted weight does not stay in memory beside it. The second run maps the packed weights of the first."""
    folder = folders[name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(1 if quantize == "none" else 2):
        run = subprocess.run([sys.executable, "-c", CHILD, folder, dtype, quantize], capture_output=True, text=True, check=True)
        weights = forecast(open_checkpoint(folder), RunOptions(dtype=dtype, quantize=quantize)).weight_bytes
        assert 0.95 * weights < int(run.stdout) < 1.05 * weights + BESIDES


@every_kernel
def test_every_number_of_the_memory_is_read(kernel: str) -> None:
    for place in (0, 17, 2**18, 3 * 2**18 - 1):
        memory = np.zeros(3 * 2**18, np.float32)
        memory[place] = 7
        assert executor("llama3", kernel).model.read(memory) == 7
