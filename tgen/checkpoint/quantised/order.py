"""Reads "g_idx", which names the group of each column: quantising in the order of activations gives groups of columns that lie apart."""

from __future__ import annotations

import numpy as np

from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT


def column_groups(name: str, index: StoredTensor, columns: int, group: int) -> StoredTensor | None:
    """The tensor that names the group of each column; None if it is needless.

    It is needless if the groups are runs of `group` neighbours, if there is one group, or if all entries are unset (-1). Raises
    CheckpointError if it names a group that has no scale.
    """
    groups = -(-columns // group)
    if (index.dtype, index.shape) != ("I32", (columns,)):
        raise CheckpointError(f"{name} is {index}, not a whole number for each of {columns} columns", DOWNLOAD_HINT)
    named = np.frombuffer(index.content(), "<i4")
    if (named == -1).all() or np.array_equal(named, np.arange(columns) // group):
        return None
    if named.min() < 0 or named.max() >= groups:
        raise CheckpointError(f"{name} names groups beyond the {groups} that have scales", DOWNLOAD_HINT)
    return None if groups == 1 else index
