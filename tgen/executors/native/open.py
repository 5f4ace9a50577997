"""Says which models the native executor runs, and loads them."""

from __future__ import annotations

from tgen.checkpoint.container import Checkpoint
from tgen.executors.session import LoadedModel
from tgen.options import RunOptions
from tgen.spec.records import ModelSpec


def supports(spec: ModelSpec) -> str | None:  # noqa: ARG001
    """Why the native executor cannot run a model; None if it can."""
    return "not built yet"


def open_executor(checkpoint: Checkpoint, options: RunOptions) -> LoadedModel:
    """The loaded model. Raises CheckpointError, MemoryLimitError."""
    raise NotImplementedError
