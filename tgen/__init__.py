"""tgen runs transformer checkpoints from plain Hugging Face folders.

import tgen
model = tgen.load()                       # or a folder, or a name
for event in model.stream("Once upon a time", seed=7):
    ...
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer to import than all of this file, and a Ctrl-C meanwhile would end in a traceback
__version__ = "0.1.0"
__all__ = ["GenerationOptions", "RunOptions", "TgenError", "__version__", "events", "load"]

if TYPE_CHECKING:
    from typing import Any

    from tgen import events
    from tgen.engine.opening import load
    from tgen.errors import TgenError
    from tgen.options import GenerationOptions, RunOptions

_HOMES = {"load": "engine.opening", "TgenError": "errors", "GenerationOptions": "options", "RunOptions": "options"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `tgen --help` stays instant."""
    import importlib

    if name == "events":
        return importlib.import_module("tgen.events")
    if name not in _HOMES:
        raise AttributeError(f"module 'tgen' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tgen.{_HOMES[name]}"), name)
