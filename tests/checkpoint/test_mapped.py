"""Weights as NumPy arrays, without torch: the numbers that torch loads, in every number format and every form of file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.forms import as_bin, as_bin_of_2019, as_file_with_odd_header, as_shards
from tests.conftest import GOLDEN, GOLDENS
from tests.sweeps import KINDS, sweep, turns
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.mapped import MappedFiles, check_repeats, is_finite, read_parameter, taken, use_huge_pages, widened
from tgen.errors import CheckpointError, UnsupportedError
from tgen.executors.torch import load
from tgen.families.table import ONE_ROW, PLUS_ONE, TRANSPOSED, Interleaved, Part, Reorder, Rows, Take, Transpose, inverse

CopyGolden = Callable[[str], Path]
WEIGHTS, BIN = "model.safetensors", "pytorch_model.bin"
FORMATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TAKES: dict[str, Take] = {
    "whole": (),
    "transposed": TRANSPOSED,
    "plus one": PLUS_ONE,
    "rows": (Rows(2, 5),),
    "part": (Part(1, 3),),
    "part of transposed": (Transpose(), Part(1, 2)),
    "interleaved": (Interleaved(1, 3, 2),),
    "several interleaved": (Interleaved(1, 3, 2, count=2),),
    "reordered": (Reorder((2, 0, 3, 1)),),
    "two numbers": (Rows(0, 3), *PLUS_ONE),
}


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """bfloat16 as uint16."""
    found: np.ndarray = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


def assert_agree(checkpoint: Checkpoint) -> None:
    """NumPy and torch make the same parameters of a checkpoint."""
    files = MappedFiles()
    check_repeats(checkpoint.matches, files)
    for name, match in checkpoint.matches.parameters.items():
        array, dtype = read_parameter(name, match, files)
        expected = load.taken(load.tensor_of(match.tensor, files), match.take)
        assert load.DTYPES[dtype] == expected.dtype, name
        np.testing.assert_array_equal(array, as_numpy(expected), name)
        np.testing.assert_array_equal(widened(array, dtype), expected.float().numpy(), name)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a copied golden, whose files are taken away."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*model*")):
        if path.suffix == ".safetensors":
            tensors |= load_file(path)
        elif path.suffix == ".bin":
            tensors |= torch.load(path, weights_only=True)
        path.unlink()
    return {name: tensor.clone() for name, tensor in tensors.items()}


TURNS = turns(GOLDENS, tuple(FORMATS))


@pytest.mark.parametrize(("name", "number_format"), sweep(product(GOLDENS, FORMATS), lambda one: one[0] in KINDS or one in TURNS))
def test_every_format(name: str, number_format: str, copy_golden: CopyGolden) -> None:
    folder, dtype = copy_golden(name), FORMATS[number_format]
    tensors = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors_of(folder).items()}
    save_file(tensors, folder / WEIGHTS)
    checkpoint = open_checkpoint(folder)
    assert {load.DTYPES[match.tensor.dtype] for match in checkpoint.matches.parameters.values()} == {dtype}
    assert_agree(checkpoint)


@pytest.mark.parametrize("write", [as_bin, as_bin_of_2019, as_shards, as_file_with_odd_header])
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "phi3"])
def test_every_form_of_file(name: str, write: Callable[[Path, dict[str, torch.Tensor]], None], copy_golden: CopyGolden) -> None:
    folder = copy_golden(name)
    write(
        folder,
        {key: tensor.T.contiguous().T if write is as_bin and tensor.ndim == 2 else tensor for key, tensor in tensors_of(folder).items()},
    )
    assert_agree(open_checkpoint(folder))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("what", TAKES)
def test_every_step(what: str, dtype: str) -> None:
    tensor = torch.randn(12, 4, generator=torch.Generator().manual_seed(5)).to(FORMATS[dtype])
    found, found_dtype = taken(as_numpy(tensor), dtype, TAKES[what])
    expected = load.taken(tensor, TAKES[what])
    assert FORMATS[found_dtype] == expected.dtype
    np.testing.assert_array_equal(found, as_numpy(expected))


@pytest.mark.parametrize("dtype", FORMATS)
def test_one_is_added_to_the_number_not_to_its_bits(dtype: str) -> None:
    array, found = taken(as_numpy(torch.tensor([0.25, -3.0], dtype=FORMATS[dtype])), dtype, PLUS_ONE)
    assert array.tolist() == [1.25, -2.0]
    assert (array.dtype.name, found) == ("float32", "F32")


@pytest.mark.parametrize("take", [(), TRANSPOSED, PLUS_ONE, ONE_ROW, (*TRANSPOSED, *PLUS_ONE)])
def test_there_and_back(take: Take) -> None:
    tensor = np.array([[1.0, 2.0, 4.0]], np.float32)
    back = inverse(take)
    assert back is not None
    np.testing.assert_array_equal(taken(*taken(tensor, "F32", take), back)[0], tensor)


@pytest.mark.parametrize("step", [Rows(0, 3), Part(0, 2), Interleaved(0, 3, 2)])
def test_no_way_back_from_a_part(step: Rows | Part | Interleaved) -> None:
    assert inverse((step,)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [*FORMATS.values(), torch.float64])
def test_what_is_no_number_is_refused(dtype: torch.dtype, value: float, copy_golden: CopyGolden) -> None:
    folder = copy_golden("mistral")
    tensors = {key: tensor.to(dtype) for key, tensor in tensors_of(folder).items()}
    tensors["model.layers.1.mlp.up_proj.weight"].view(-1)[-1] = value
    save_file(tensors, folder / WEIGHTS)
    checkpoint, bad = open_checkpoint(folder), "decoder.layers.1.feed_forward.up.weight"
    files = MappedFiles()
    for name, match in checkpoint.matches.parameters.items():
        if name != bad:
            read_parameter(name, match, files)
    with pytest.raises(CheckpointError, match=rf"{bad} hold NaN or infinity"):
        read_parameter(bad, checkpoint.matches.parameters[bad], files)


def test_the_largest_numbers_are_numbers() -> None:
    for name, dtype in FORMATS.items():
        largest = torch.finfo(dtype).max
        assert is_finite(as_numpy(torch.tensor([[largest, -largest]] * 3, dtype=dtype)), name)


def test_every_block_is_looked_at() -> None:
    array = np.zeros((3, 2**20), np.float32)
    assert is_finite(array, "F32") and is_finite(np.zeros((0, 4), np.float32), "F32")
    array[2, 7] = np.inf
    assert not is_finite(array, "F32")


def test_copies_that_differ_are_refused(copy_golden: CopyGolden) -> None:
    folder = copy_golden("bart")
    tensors = tensors_of(folder)
    tensors["model.decoder.embed_tokens.weight"] += 1e-6
    as_bin(folder, tensors)
    with pytest.raises(UnsupportedError, match=r"model\.decoder\.embed_tokens\.weight should be a copy of another tensor"):
        check_repeats(open_checkpoint(folder).matches, MappedFiles())


READ = """
import sys
from pathlib import Path
from tgen.checkpoint.container import open_checkpoint
from tgen.checkpoint.mapped import MappedFiles, check_repeats, read_parameter

matches, files = open_checkpoint(Path(sys.argv[1])).matches, MappedFiles()
check_repeats(matches, files)
print(sum(read_parameter(name, match, files)[0].size for name, match in matches.parameters.items()), "torch" in sys.modules)
"""


def test_torch_is_not_imported() -> None:
    for name in ("bart", "gemma2"):
        found = subprocess.run([sys.executable, "-c", READ, str(GOLDEN / name)], capture_output=True, text=True, check=True)
        numbers, imported = found.stdout.split()
        assert int(numbers) > 1000 and imported == "False"


def test_a_system_without_huge_pages_maps_files_all_the_same() -> None:
    class Refusing:
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    use_huge_pages(Refusing())  # type: ignore[arg-type]
