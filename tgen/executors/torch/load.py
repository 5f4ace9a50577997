"""Loads a checkpoint's weights into a torch model. Weights in the wanted number format stay mapped and are not copied."""

from __future__ import annotations

import torch
from torch import Tensor

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import MappedFiles, check_repeats
from tgen.checkpoint.matching import Match, no_number
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.executors.torch.transformer import Transformer
from tgen.families.table import Add, Take, moved

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def load_model(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Transformer:
    """The model with its weights on `device` in `dtype`, ready to run.

    Raises CheckpointError for NaN or infinity in the weights, and for numbers beyond the range of `dtype`, and UnsupportedError for a
    tensor that should be a copy of another one but differs from it.
    """
    with torch.device("meta"):
        model = Transformer(checkpoint.spec)
    precise = model.precise()
    files = MappedFiles()
    state = {
        name: _load(name, match, files, device, torch.float32 if name in precise else dtype)
        for name, match in checkpoint.matches.parameters.items()
    }
    check_repeats(checkpoint.matches, files)
    model.assign(state, device, dtype)
    return model.requires_grad_(False).eval()


def tensor_of(stored: StoredTensor, files: MappedFiles) -> Tensor:
    """A stored tensor as a view of its file."""
    return torch.from_numpy(files.array(stored)).view(DTYPES[stored.dtype])


def taken(tensor: Tensor, take: Take) -> Tensor:
    """A tensor after the steps of a table."""
    for step in take:
        tensor = tensor.float() + step.number if isinstance(step, Add) else moved(step, tensor)
    return tensor


def _load(name: str, match: Match, files: MappedFiles, device: torch.device, dtype: torch.dtype) -> Tensor:
    part = taken(tensor_of(match.tensor, files), match.take)
    if part.dtype == dtype and part.is_contiguous():
        tensor = part
    else:
        # Convert and reorder in one step: temporary tensors would fragment the heap.
        tensor = torch.empty(part.shape, dtype=dtype).copy_(part)
    # aminmax returns NaN if any number is NaN.
    if not torch.stack(torch.aminmax(tensor)).isfinite().all():
        if part.isfinite().all():
            raise CheckpointError(f"the weights of {name} hold numbers too large for {str(dtype)[6:]}", "use --dtype float32 or bfloat16")
        raise no_number(name)
    tensor = tensor.to(device)
    if tensor.data_ptr() != part.data_ptr():
        files.release(match.tensor)
    return tensor
