"""Loading: the numbers are the file's, whatever the file's form; NaN and infinity are refused; loading needs little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.forms import as_bin, as_bin_of_2019, as_bin_shards, as_file_with_odd_header, as_shards
from tests.conftest import GOLDEN, GOLDENS
from tests.sweeps import KINDS, sweep, turns
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError, UnsupportedError
from tgen.executors.torch.layers import Experts
from tgen.executors.torch.load import load_model
from tgen.executors.torch.norms import HeadNorm, RmsNorm
from tgen.executors.torch.save import save_weights
from tgen.executors.torch.transformer import Transformer

CopyGolden = Callable[[str], Path]
CPU = torch.device("cpu")
WEIGHTS, BIN = "model.safetensors", "pytorch_model.bin"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    return load_model(open_checkpoint(folder), CPU, dtype)


def assert_same(found: Transformer, expected: Transformer) -> None:
    found_state, expected_state = found.state_dict(), expected.state_dict()
    assert found_state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        assert found_state[name].dtype == tensor.dtype, name
        assert torch.equal(found_state[name], tensor), name


@pytest.mark.parametrize("write", [as_bin, as_bin_of_2019, as_shards, as_bin_shards, as_file_with_odd_header])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "qwen3", "bert", "t5_flan"])
def test_every_form_of_file_gives_the_same(
    name: str, write: Callable[[Path, dict[str, torch.Tensor]], None], copy_golden: CopyGolden
) -> None:
    folder = copy_golden(name)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    write(folder, tensors)
    assert_same(load(folder), load(GOLDEN / name))


DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TURNS = turns(GOLDENS, DTYPES)


@pytest.mark.parametrize(("name", "dtype"), sweep(product(GOLDENS, DTYPES), lambda one: one[0] in KINDS or one in TURNS))
def test_every_type_is_converted(name: str, dtype: torch.dtype) -> None:
    """The weights of root-mean-square norms and what routers choose by are the exceptions: they stay in float32."""
    model, expected = load(GOLDEN / name, dtype), load(GOLDEN / name)
    for name_of_module, module in expected.named_modules():
        routes = name_of_module.endswith(".router") and not name_of_module.endswith(
            ".streams.router"
        )  # which weighs streams, and chooses none
        if not isinstance(module, RmsNorm | HeadNorm | Experts) and not routes:
            for tensor in module.parameters(recurse=False):
                tensor.data = tensor.to(dtype)
    assert (model.dtype, model.device) == (dtype, CPU)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_same(model, expected)


@pytest.mark.parametrize("name", ["gpt2", "t5_flan"])
def test_columns_before_rows_and_shared_storages(name: str, copy_golden: CopyGolden) -> None:
    """The program that writes a `.bin` may order and share a tensor's numbers as it likes."""
    folder = copy_golden(name)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    shared = torch.cat([tensor.float().reshape(-1) for tensor in tensors.values()])
    parts = torch.split(shared, [tensor.numel() for tensor in tensors.values()])
    wanted = dict(zip(tensors, (part.view(tensor.shape) for part, tensor in zip(parts, tensors.values(), strict=True)), strict=True))
    for number, (key, tensor) in enumerate(wanted.items()):
        if number % 2:
            wanted[key] = tensor.T.contiguous().T if tensor.ndim == 2 else torch.nn.Parameter(tensor)
    as_bin(folder, OrderedDict(wanted))
    assert_same(load(folder), load(GOLDEN / name))


def test_safetensors_win_over_bin(copy_golden: CopyGolden) -> None:
    folder = copy_golden("mistral")
    (folder / BIN).write_bytes(b"never opened")
    assert_same(load(folder), load(GOLDEN / "mistral"))


def test_the_file_wins_over_the_flag(copy_golden: CopyGolden) -> None:
    """A stored head is used although the config says that it is the embedding; tgen does not invent a head that the files lack."""
    folder = copy_golden("mistral")
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert_same(load(folder), load(GOLDEN / "mistral"))

    folder = copy_golden("qwen2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lack the tensor lm_head\.weight"):
        open_checkpoint(folder)


def edit_bin(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors: dict[str, torch.Tensor] = torch.load(folder / BIN, weights_only=True)
    change(tensors)
    torch.save(tensors, folder / BIN)


SHARED, ENCODERS, DECODERS = "model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"


@pytest.mark.parametrize("kept", [{SHARED}, {ENCODERS}, {DECODERS}, {SHARED, DECODERS}, {ENCODERS, DECODERS}])
def test_one_of_several_copies_is_enough(kept: set[str], copy_golden: CopyGolden) -> None:
    """Some files hold the embedding once for each of its uses, some only one of these, and not always the same."""
    folder = copy_golden("bart")
    edit_bin(folder, lambda tensors: [tensors.pop(name) for name in {SHARED, ENCODERS, DECODERS} - kept])
    assert_same(load(folder), load(GOLDEN / "bart"))


@pytest.mark.parametrize("kept", [{SHARED, ENCODERS, DECODERS}, {ENCODERS, DECODERS}])
def test_copies_that_differ_are_refused(kept: set[str], copy_golden: CopyGolden) -> None:
    folder = copy_golden("bart")
    edit_bin(folder, lambda tensors: [tensors.pop(name) for name in {SHARED, ENCODERS, DECODERS} - kept])
    edit_bin(folder, lambda tensors: tensors.update({DECODERS: tensors[DECODERS] + 1e-6}))
    with pytest.raises(UnsupportedError, match=r"model\.decoder\.embed_tokens\.weight should be a copy of another tensor") as caught:
        load(folder)
    assert caught.value.hint is not None and "one matrix of embeddings" in caught.value.hint


def test_a_bias_that_is_not_stored_is_none(copy_golden: CopyGolden) -> None:
    """BART's files lack the bias of the head where it was never trained."""
    folder = copy_golden("bart")
    edit_bin(folder, lambda tensors: tensors.pop("final_logits_bias"))
    head = load(folder).head
    assert head is not None and head.out.bias is None


def test_an_encoder_without_a_head_gives_vectors_only() -> None:
    model = load(GOLDEN / "bert_headless")
    assert model.head is None
    hidden = model(torch.tensor([[1, 2, 3]]))
    assert hidden.shape == (1, 3, 16)
    with pytest.raises(ValueError, match="has no head"):
        model.logits(hidden)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name, tensor", [("mistral", "model.layers.1.mlp.up_proj.weight"), ("gpt2", "h.0.attn.c_attn.bias")])
def test_what_is_no_number_is_refused(name: str, tensor: str, value: float, copy_golden: CopyGolden) -> None:
    folder = copy_golden(name)
    tensors = load_file(folder / WEIGHTS)
    tensors[tensor].view(-1)[-1] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"decoder\.layers\.\d\.\S+ hold NaN or infinity") as caught:
        load(folder)
    assert caught.value.hint is not None and "damaged" in caught.value.hint


def test_large_numbers_are_numbers(copy_golden: CopyGolden) -> None:
    """Their sum may overflow; loading fails only if a single number does not fit the wanted type."""
    folder = copy_golden("mistral")
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"].fill_(3e38)
    save_file(tensors, folder / WEIGHTS)
    load(folder)
    with pytest.raises(CheckpointError, match="too large for float16") as caught:
        load(folder, torch.float16)
    assert caught.value.hint is not None and "float32" in caught.value.hint


def test_loading_does_not_write(copy_golden: CopyGolden) -> None:
    """Weights are mapped, but a change to them stays in memory."""
    folder = copy_golden("mistral")
    before = (folder / WEIGHTS).read_bytes()
    load(folder).embedding.weight.fill_(7)
    assert (folder / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("name", ["bert", "gemma2", "gemma3", "llama2", "llama3", "mistral", "opt", "phi", "qwen2_window", "qwen3", "t5"])
def test_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / name)
    model = load_model(checkpoint, CPU, torch.float32)
    save_weights(tmp_path, checkpoint.config, model, torch.float32)
    assert_same(load(tmp_path), model)
    assert (tmp_path / WEIGHTS).stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_fused_families_are_not_saved(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(GOLDEN / "gpt2")
    with pytest.raises(ValueError, match="fused matrices"):
        save_weights(tmp_path, checkpoint.config, load_model(checkpoint, CPU, torch.float32), torch.float32)


MEASURE = """
import sys
from pathlib import Path
import torch
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.torch.load import load_model

def memory(line):
    return next(int(text.split()[1]) * 1024 for text in open("/proc/self/status") if text.startswith(line))

torch.set_num_threads(1)
load_model(open_checkpoint(Path(sys.argv[1])), torch.device("cpu"), torch.float32)  # some of torch is loaded on first use
kept = []
for folder, dtype in zip(sys.argv[2::2], sys.argv[3::2]):
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is used now
    before = memory("VmRSS:")
    model = load_model(open_checkpoint(Path(folder)), torch.device("cpu"), getattr(torch, dtype))
    wanted = sum(parameter.nbytes for parameter in model.parameters())
    print((memory("VmHWM:") - before) / wanted)
    kept.append(model)  # so that the next cannot use its memory again
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory(copy_golden: CopyGolden, tmp_path: Path) -> None:
    """Loading needs at most 1.3 times the memory of the loaded weights."""
    small = copy_golden("gpt2")  # whose matrices are stored transposed: the worst case
    arguments = [str(small)]
    for stored, wanted in (("bfloat16", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")):
        folder = tmp_path / stored
        if not folder.exists():
            enlarge(small, folder, getattr(torch, stored))
        arguments += [str(folder), wanted]
    run = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True, cwd=GOLDEN.parents[1])
    figures = [float(line) for line in run.stdout.split()]
    assert len(figures) == 3
    print(figures)
    assert max(figures) < 1.3, figures


def enlarge(small: Path, folder: Path, dtype: torch.dtype) -> None:
    """A folder like the small GPT-2, with 36 million parameters."""
    folder.mkdir()
    config = json.loads((small / "config.json").read_text())
    config |= {"n_embd": 768, "n_layer": 4, "n_head": 12, "vocab_size": 10_000}
    (folder / "config.json").write_text(json.dumps(config))
    extents = {24: 768, 72: 3 * 768, 96: 4 * 768, 288: 10_000}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(small / WEIGHTS).items():
        shape = [extents.get(extent, extent) for extent in tensor.shape]
        copies = [name.replace("h.0.", f"h.{layer}.") for layer in range(4)] if name.startswith("h.0.") else [name]
        if not name.startswith("h.1.") and not name.endswith(".attn.bias"):
            tensors |= {copy: torch.ones(shape, dtype=dtype) for copy in copies}
    save_file(tensors, folder / WEIGHTS)
