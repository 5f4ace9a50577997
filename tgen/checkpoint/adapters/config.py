"""Reads the adapter_config.json of a LoRA adapter as peft writes it. Every key that changes arithmetic is read or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import read_json

CONFIG = "adapter_config.json"
HINT = f"{CONFIG} is damaged or was edited; get the adapter again"
# Keys that do not change the result: bookkeeping, settings of the training, and facts that the tensors' names or the family's table give.
HARMLESS = frozenset(
    """
    auto_mapping base_model_class bias corda_config eva_config exclude_modules fan_in_fan_out inference_mode layers_pattern
    layers_to_transform loftq_config lora_dropout lora_ga_config megatron_core parent_library peft_version qalora_group_size
    runtime_config target_modules task_type
    """.split()
)
READ = frozenset(
    """
    peft_type base_model_name_or_path revision r lora_alpha rank_pattern alpha_pattern use_rslora use_dora modules_to_save
    ensure_weight_tying init_lora_weights
    """.split()
)
# Values of init_lora_weights that leave the base's weights unchanged. The others change them, and the adapter fits only the changed ones.
INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")
OFF: tuple[object, ...] = (None, False, {}, [])


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The settings of an adapter: the ranks and scales of its matrices, the modules that it replaces, and what else changes arithmetic.

    `base` is the model that it was trained on, as its author named it. `ranks` and `alphas` map regular expressions to the values of the
    modules whose names they match; `rank` and `alpha` hold for the others. `saved` names the modules that the adapter brings whole.
    """

    base: str | None
    revision: str | None
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    is_rank_stabilised: bool
    has_magnitudes: bool
    saved: tuple[str, ...]
    ties: bool

    def rank_of(self, module: str) -> int:
        """The rank of a module's matrices."""
        return int(_matching(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """The factor of the product of a module's two matrices: alpha / rank (Hu et al. 2021).

        With rsLoRA (Kalajdzievski 2023) it is alpha / sqrt(rank).
        """
        rank = self.rank_of(module)
        return _matching(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.is_rank_stabilised else rank)

    def replaces(self, module: str) -> bool:
        """Whether the adapter was trained with a copy of this module in place of the base's."""
        return any(module == name or module.endswith(f".{name}") for name in self.saved)


def read_config(folder: Path) -> AdapterConfig:
    """The settings of an adapter's folder.

    Raises UnsupportedError for a setting that tgen does not implement, CheckpointError for an invalid value.
    """
    values = read_json(folder / CONFIG)
    kind = values.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{folder / CONFIG}: peft_type = {kind!r} is not implemented", "implemented: LORA, also with DoRA or rsLoRA")
    initialisation = values.get("init_lora_weights")
    if initialisation not in INITIALISATIONS:
        raise UnsupportedError(
            f"{folder / CONFIG}: init_lora_weights = {initialisation!r} is not implemented, because it changes the base's weights",
            "let peft convert the adapter to plain LoRA when saving it (path_initial_model_for_weight_conversion)",
        )
    for key, value in values.items():
        if key not in READ and key not in HARMLESS and value not in OFF:
            raise UnsupportedError(f"{folder / CONFIG}: {key} = {str(value)[:60]} is not implemented", "merge the adapter with peft")
    reader = _Reader(folder / CONFIG, values)
    return AdapterConfig(
        base=reader.text("base_model_name_or_path"),
        revision=reader.text("revision"),
        rank=int(reader.positive("r", values.get("r", 8), whole=True)),
        alpha=reader.positive("lora_alpha", values.get("lora_alpha", 8)),
        ranks={name: int(reader.positive("rank_pattern", rank, whole=True)) for name, rank in reader.patterns("rank_pattern")},
        alphas={name: reader.positive("alpha_pattern", alpha) for name, alpha in reader.patterns("alpha_pattern")},
        is_rank_stabilised=reader.flag("use_rslora"),
        has_magnitudes=reader.flag("use_dora"),
        saved=reader.names("modules_to_save"),
        ties=reader.flag("ensure_weight_tying"),
    )


class _Reader:
    """Reads values and checks their types. Each method raises CheckpointError, which names the file and the key."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path, self._values = path, values

    def _wrong(self, key: str, value: object, wanted: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {key} = {str(value)[:60]!r} is not {wanted}", HINT)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value or None

    def flag(self, key: str) -> bool:
        value = self._values.get(key) or False
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def positive(self, key: str, value: object, *, whole: bool = False) -> float:
        """A number above 0 that a float32 holds."""
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value < 2**31:  # type: ignore[operator]
            raise self._wrong(key, value, f"a {'whole ' * whole}number above 0")
        return float(value)  # type: ignore[arg-type]

    def patterns(self, key: str) -> list[tuple[str, object]]:
        """The pairs of a mapping from regular expressions."""
        value = self._values.get(key) or {}
        try:
            if isinstance(value, dict) and all(re.compile(pattern) for pattern in value):
                return list(value.items())
        except re.error:
            pass
        raise self._wrong(key, value, "a mapping from regular expressions")

    def names(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._wrong(key, value, "a list of names")
        return tuple(value)


def _matching(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that matches the end of a module's name, as in peft; `default` if none matches."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default)
