"""Finds the method with which a folder's weights are quantised, or says that it is not implemented."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tgen.checkpoint.quantised.method import IMPLEMENTED, Method, refused
from tgen.errors import UnsupportedError
from tgen.families.config import Config
from tgen.files import read_optional_json

# For each method, the module and its function that reads the settings. A module is imported only when a folder needs it.
METHODS = {
    "awq": ("awq", "read"),
    "auto-round": ("gptq", "read_autoround"),
    "bitsandbytes": ("bitsandbytes", "read"),
    "compressed-tensors": ("compressed", "read"),
    "compressed_tensors": ("compressed", "read"),
    "fbgemm_fp8": ("fp8", "read"),
    "fp8": ("fp8", "read"),
    "gptq": ("gptq", "read"),
    "mlx": ("mlx", "read"),
    "modelopt": ("fp8", "read_modelopt"),
    "mxfp4": ("mxfp4", "read"),
}
# The files beside config.json that hold the settings in older folders.
OLDER = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


def find_method(config: Config, folder: Path) -> Method | None:
    """The method, from config.json or from a file beside it; None for a folder that is not quantised.

    Raises UnsupportedError for a method, or a variant of one, that is not implemented.
    """
    found, mlx_settings = config.mapping("quantization_config"), config.mapping("quantization")
    if mlx_settings or (found and "quant_method" not in found and {"group_size", "bits"} <= found.keys()):
        return _read("mlx", mlx_settings or found)  # mlx-lm writes the same settings under both keys
    if not found:
        found = _beside(folder)
    if not found:
        return None
    name = found.get("quant_method")
    if isinstance(name, str) and name.removeprefix("intel/") == "auto-round":
        packing = str(found.get("packing_format") or found.get("backend"))
        return _read("awq" if "awq" in packing else "auto-round", found)
    if not isinstance(name, str) or name not in METHODS:
        raise refused("quant_method", name)
    return _read(name, found)


def _read(name: str, settings: dict[str, Any]) -> Method:
    module, function = METHODS[name]
    read: Callable[[dict[str, Any]], Method] = getattr(import_module(f"tgen.checkpoint.quantised.{module}"), function)
    return read(settings)


def _beside(folder: Path) -> dict[str, Any]:
    """The settings in a file beside config.json, with the keys of `quantization_config`; empty if there is no such file."""
    for file, method in OLDER.items():
        if found := read_optional_json(folder / file):
            return {**found, "quant_method": method}
    if found := read_optional_json(folder / "hf_quant_config.json"):
        settings = found.get("quantization")
        if not isinstance(settings, dict):
            raise UnsupportedError("hf_quant_config.json does not say how the weights are quantised", IMPLEMENTED)
        return {**settings, "quant_method": "modelopt"} if settings.get("quant_algo") else {}
    return {}
