"""`.bin` files that are damaged, that would take too much memory, or that would run code."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.checkpoint.damage import LFS_POINTER, bad, cut, edit_bin


@bad("llama2", "needs unpickling code to load, which could run anything", "get the model as safetensors")
def bin_with_code(folder: Path) -> None:
    import torch

    torch.save({"model.norm.weight": Trap(folder / "sprung")}, folder / "pytorch_model.bin")


@bad("llama2", "needs unpickling code to load", "get the model as safetensors")
def bin_plain_pickle_with_code(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "sprung"), protocol=2))


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return Path(self.path).mkdir, ()  # type: ignore[return-value]


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", "download the file again")
def bin_truncated(folder: Path) -> None:
    cut(folder / "pytorch_model.bin", 30_000)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", "download the file again")
def bin_empty(folder: Path) -> None:
    cut(folder / "pytorch_model.bin", 0)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", "download the file again")
def bin_of_text(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"hello world" * 99)


@bad("llama2", r"pytorch_model\.bin is a Git-LFS pointer", "git lfs pull")
def bin_lfs_pointer(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(LFS_POINTER)


@bad("llama2", "does not hold a dictionary of tensors", "training state")
def bin_training_state(folder: Path) -> None:
    import torch

    torch.save({"step": 3, "model": {}}, folder / "pytorch_model.bin")


BIN_HINT = "download the file again"


def edit_archive(folder: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Change the records of a `.bin`."""
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        records = [(name, change(name, archive.read(name))) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_compressed(folder: Path) -> None:
    """A compressed kilobyte can become gigabytes; PyTorch compresses no file."""
    edit_archive(folder, lambda _, content: content, zipfile.ZIP_DEFLATED)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_with_an_endless_program(folder: Path) -> None:
    edit_archive(folder, lambda name, content: b"]" * 2_100_000 + b"." if name.endswith("data.pkl") else content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_with_a_storage_too_short(folder: Path) -> None:
    """PyTorch itself would fill the tensor with the bytes that follow in the file."""
    edit_archive(folder, lambda name, content: content[:-4] if name.endswith("data/0") else content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_with_tensors_that_go_beyond_their_storages(folder: Path) -> None:
    """Each tensor begins one number later, and so ends beyond its storage."""
    edit_archive(folder, lambda name, content: content.replace(b"QK\x00", b"QK\x01") if name.endswith("data.pkl") else content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_of_the_other_byte_order(folder: Path) -> None:
    edit_archive(folder, lambda name, content: b"big" if name.endswith("byteorder") else content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def bin_with_a_number_that_stands_for_many(folder: Path) -> None:
    import torch

    edit_bin(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(1).expand(16)}))


@bad("llama2", r"which could run anything \(torch\._utils\._rebuild_sparse_tensor\)", "get the model as safetensors")
def bin_with_a_sparse_tensor(folder: Path) -> None:
    edit_bin(folder, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].to_sparse()}))


@bad("llama2", r"which could run anything \(builtins\.bytearray\)", "get the model as safetensors")
def bin_that_asks_for_memory(folder: Path) -> None:
    program = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R."
    edit_archive(folder, lambda name, content: program if name.endswith("data.pkl") else content)


@bad("llama2", r"pytorch_model\.bin is damaged or truncated", BIN_HINT)
def old_bin_with_a_tail(folder: Path) -> None:
    import torch

    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with open(folder / "pytorch_model.bin", "ab") as file:
        file.write(b"x")
