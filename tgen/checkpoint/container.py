"""A model folder, opened and checked without torch: its spec, where its tensors lie, and its generation defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgen.checkpoint.matching import Matches, match_tensors, settle_head
from tgen.checkpoint.safetensors import stored_tensors
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.files import read_json, read_optional_json
from tgen.spec.records import ModelSpec

OLD_SETTINGS = frozenset(
    """
    bad_words_ids begin_suppress_tokens do_sample early_stopping forced_bos_token_id forced_eos_token_id length_penalty max_length
    min_length no_repeat_ngram_size num_beams repetition_penalty suppress_tokens temperature top_k top_p
    """.split()
)


# Settings that transformers obeys and tgen does not, each with the value that changes nothing.
NOT_HONOURED: dict[str, object] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "guidance_scale": None,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "sequence_bias": None,
    "typical_p": 1.0,
    "watermarking_config": None,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder holds; `generation` is generation_config.json as it stands."""

    folder: Path
    model_type: str
    spec: ModelSpec
    stored: dict[str, StoredTensor]
    matches: Matches
    config: dict[str, Any]
    generation: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, for people."""
        return self.folder.resolve().name


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a folder. Raises CheckpointError or UnsupportedError with the one thing that is wrong."""
    if not folder.is_dir():
        raise CheckpointError(f"no folder {folder}", "`tgen models` lists the models there are")
    config = Config(read_json(folder / "config.json"))
    family = find_family(config.model_type)
    config.require("quantization_config", [])
    config.require("add_cross_attention", [False])
    config.require("pruned_heads", [{}])
    spec = family.spec(config)
    config.refuse_unread()
    generation = read_optional_json(folder / "generation_config.json")
    stored = stored_tensors(folder)
    spec = settle_head(family, spec, stored)
    matches = match_tensors(family.tensors(spec), spec, stored)
    return Checkpoint(folder, config.model_type, spec, stored, matches, config.values, generation)


def generation_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """generation_config.json; for a folder from before there was one, the same keys in config.json."""
    if checkpoint.generation:
        return checkpoint.generation
    return {key: value for key, value in checkpoint.config.items() if key in OLD_SETTINGS}


def not_honoured(checkpoint: Checkpoint) -> list[str]:
    """The keys of generation_config.json that ask for something that tgen does not do."""
    settings = checkpoint.generation
    return [key for key, neutral in NOT_HONOURED.items() if settings.get(key) is not None and settings[key] != neutral]


def start_token(checkpoint: Checkpoint) -> int | None:
    """The id that stands before everything, if the folder names one."""
    for source in (checkpoint.generation, checkpoint.config):
        value = source.get("bos_token_id")
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < checkpoint.spec.vocab:
            return value
    return None


def decoder_start(checkpoint: Checkpoint) -> int:
    """The id that a decoder's answer begins with, before anything is written. Raises CheckpointError if the folder names none."""
    for source in (checkpoint.generation, checkpoint.config):
        for key in ("decoder_start_token_id", "bos_token_id"):
            value = source.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < checkpoint.spec.vocab:
                return value
    raise CheckpointError("neither generation_config.json nor config.json has a decoder_start_token_id", "add it, or download both again")


def end_tokens(checkpoint: Checkpoint) -> frozenset[int]:
    """The ids that end a text, from generation_config.json or else config.json. Raises CheckpointError for a value that is no id."""
    for source in (checkpoint.generation, checkpoint.config):
        value = source.get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < checkpoint.spec.vocab for i in ids):
            message = f"eos_token_id = {value!r} does not name ids below the vocabulary's {checkpoint.spec.vocab}"
            raise CheckpointError(message, "correct it in generation_config.json or config.json")
        return frozenset(ids)
    return frozenset()
