"""Bring a checkpoint's weights into a torch model: mapped, not copied, where the stored type is the wanted one.

Knows tables and files, no family.
"""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import torch
from torch import Tensor

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.matching import Match, Matches, no_repeat
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.executors.torch.transformer import Transformer

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def load_model(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Transformer:
    """The model with its weights on `device` in `dtype`, ready to run. Raises CheckpointError for NaN or infinity in the weights
    and UnsupportedError for a tensor that should repeat another one and does not."""
    with torch.device("meta"):
        model = Transformer(checkpoint.spec)
    files = MappedFiles()
    state = {name: _load(name, match, files, device, dtype) for name, match in checkpoint.matches.parameters.items()}
    _check_repeats(checkpoint.matches, files)
    model.load_state_dict(state, strict=True, assign=True)
    return model.requires_grad_(False).eval()


class MappedFiles:
    """Files of weights mapped into memory, each once; pages are given back as soon as a converted copy exists."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def tensor(self, stored: StoredTensor) -> Tensor:
        """A view of the file. Private pages: writing to it would not change the file."""
        count = (stored.stop - stored.start) // DTYPES[stored.dtype].itemsize
        if count == 0:
            return torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
        flat = torch.frombuffer(self._map(stored.file), dtype=DTYPES[stored.dtype], count=count, offset=stored.start)
        return flat.view(stored.shape) if stored.strides is None else flat.as_strided(stored.shape, stored.strides)

    def release(self, stored: StoredTensor) -> None:
        """Let the system drop the pages of a tensor that was copied, so that loading needs little more than the weights."""
        mapped = self._maps.get(stored.file)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            start = -(-stored.start // mmap.PAGESIZE) * mmap.PAGESIZE
            length = stored.stop // mmap.PAGESIZE * mmap.PAGESIZE - start
            if length > 0:
                mapped.madvise(mmap.MADV_DONTNEED, start, length)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with open(path, "rb") as file:
                try:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                except OSError as error:
                    if error.errno == errno.ENOMEM:
                        raise MemoryError(f"no room for {path.name}") from error
                    raise
        return self._maps[path]


def _load(name: str, match: Match, files: MappedFiles, device: torch.device, dtype: torch.dtype) -> Tensor:
    part: Tensor = match.take(files.tensor(match.tensor))
    if part.dtype == dtype and part.is_contiguous():
        tensor = part
    else:
        # Converted and reordered in one step: a temporary of each size would leave holes in the heap.
        tensor = torch.empty(part.shape, dtype=dtype).copy_(part)
    # NaN is the least and the greatest of any numbers that it is among.
    if not torch.stack(torch.aminmax(tensor)).isfinite().all():
        if part.isfinite().all():
            raise CheckpointError(f"the weights of {name} hold numbers too large for {str(dtype)[6:]}", "use --dtype float32 or bfloat16")
        raise CheckpointError(f"the weights of {name} hold NaN or infinity", "the file is damaged or the training diverged; get it again")
    tensor = tensor.to(device)
    if tensor.data_ptr() != part.data_ptr():
        files.release(match.tensor)
    return tensor


def _check_repeats(matches: Matches, files: MappedFiles) -> None:
    """Raise UnsupportedError where a tensor that should hold another one once more holds something else."""
    for name, (copy, original) in matches.repeats.items():
        if not torch.equal(files.tensor(copy), files.tensor(original)):
            raise no_repeat(name)
