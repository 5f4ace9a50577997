"""From a state per token to one vector per text, as a sentence-transformers folder asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from tgen.errors import CheckpointError, UnsupportedError
from tgen.executors.session import LoadedModel
from tgen.files import read_optional_json
from tgen.options import Pooling
from tgen.sampling.logits import require_finite

Floats = npt.NDArray[np.float32]
POOLINGS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "mean": "mean", "cls": "first"}
MODULES = ("Transformer", "Pooling", "Normalize")
HINT = "correct it or leave it out"


@dataclass(frozen=True, slots=True)
class VectorSettings:
    """How a folder's vectors are made: the pooling, whether they have length 1, the most tokens read, whether text is lower-cased."""

    pooling: Pooling = "mean"
    normalize: bool = False
    longest: int | None = None
    lower: bool = False


def hidden_states(model: LoadedModel, rows: Sequence[Sequence[int]], width: int) -> list[Floats]:
    """The encoder's states of each row of ids, [n, width], all read in one pass; [0, width] for a row without ids."""
    found = iter(model.encode([row for row in rows if row]))
    return [next(found) if row else np.zeros((0, width), dtype=np.float32) for row in rows]


def pool(states: Floats, pooling: Pooling, normalize: bool) -> Floats:
    """[n, width] -> [width]: the mean over tokens, or the first token's state; of length 1 if `normalize`. Zeros for no tokens.

    Raises NumericalError for numbers that are not finite.
    """
    require_finite(states, "in a vector")
    if not len(states):
        return np.zeros(states.shape[1], dtype=np.float32)
    vector = states.mean(axis=0, dtype=np.float32) if pooling == "mean" else states[0]
    if normalize:
        vector = vector / np.float32(max(float(np.linalg.norm(vector)), 1e-12))
    result: Floats = vector
    return result


def folder_settings(folder: Path, asked: Pooling | None = None) -> VectorSettings:
    """The settings of a sentence-transformers folder; for another folder the mean of all tokens. `asked` wins over the folder's pooling.

    Raises UnsupportedError for a pooling or a further step that tgen does not implement, CheckpointError for a bad value.
    """
    reading = read_optional_json(folder / "sentence_bert_config.json")
    longest = reading.get("max_seq_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 2):
        raise CheckpointError(f"sentence_bert_config.json: max_seq_length = {longest!r} is not a whole number, 2 or more", HINT)
    steps = _steps(folder / "modules.json")
    pooling = asked or _folder_pooling(read_optional_json(folder / "1_Pooling" / "config.json"))
    return VectorSettings(pooling, "Normalize" in steps, longest, reading.get("do_lower_case") is True)


def _folder_pooling(settings: dict[str, Any]) -> Pooling:
    asked = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    if isinstance(settings.get("pooling_mode"), str):
        asked = [settings["pooling_mode"]]
    if not all(key in POOLINGS for key in asked) or len(asked) > 1:
        hint = f"give --pooling {' or '.join(get_args(Pooling))}"
        raise UnsupportedError(f"1_Pooling/config.json: {', '.join(asked)} is not implemented", hint)
    return POOLINGS[asked[0]] if asked else "mean"


def _steps(path: Path) -> list[str]:
    """The names of the classes in a modules.json; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_bytes())
        steps = [module["type"].rpartition(".")[2] for module in modules]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a list of modules", "download the file again") from error
    unknown = [step for step in steps if step not in MODULES]
    if unknown:
        raise UnsupportedError(f"modules.json: {', '.join(unknown)} is not implemented", f"tgen implements {', '.join(MODULES)}")
    return steps
