"""The only reader of generation_config.json. It checks a folder's settings for generation, and lists those that tgen does not support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tgen.checkpoint.container import Checkpoint
from tgen.errors import CheckpointError, UsageError
from tgen.options import DECLARED, FROM_MODEL

Ids = tuple[int, ...]

LARGEST_PENALTY = 50  # a length to a higher power may exceed the range of a float

# Keys that change what transformers generates but that tgen does not support, each with its neutral value.
NOT_HONOURED: dict[str, object] = {
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_decoder_ids": None,
    "guidance_scale": None,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "sequence_bias": None,
    "stop_strings": None,
    "token_healing": False,
    "top_h": None,
    "watermarking_config": None,
}
OTHERS = """
bad_words_ids begin_suppress_tokens do_sample early_stopping encoder_no_repeat_ngram_size forced_bos_token_id forced_eos_token_id
length_penalty max_length min_length renormalize_logits suppress_tokens
"""
SETTINGS = frozenset([*FROM_MODEL, *NOT_HONOURED, *OTHERS.split()])


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """A folder's settings. `options` are values for GenerationOptions; only a folder can set the other fields.

    `min_length` counts the prompt. `forced_first` is the decoder's first token after its start token, if any. The last token that the
    length allows must be one of `forced_last`. `suppressed` tokens are never generated, and those in `suppressed_first` never as the first
    token. No sequence of `source_ngram_size` ids of the encoder's text is repeated; 0 allows all. If beams are `renormalised`, the
    probabilities of the tokens that the rules allow add up to 1.
    """

    options: Mapping[str, int | float] = field(default_factory=dict)
    start_token: int | None = None
    decoder_start: int | None = None
    end_tokens: frozenset[int] = frozenset()
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    min_length: int = 0
    bad_words: tuple[Ids, ...] = ()
    forced_first: int | None = None
    forced_last: Ids = ()
    suppressed: Ids = ()
    suppressed_first: Ids = ()
    source_ngram_size: int = 0
    renormalised: bool = False


def read_generation(checkpoint: Checkpoint) -> GenerationConfig:
    """The settings of an opened folder.

    Raises CheckpointError for an invalid value, and for an encoder-decoder without the decoder's start token.
    """
    answers = checkpoint.spec.kind == "encoder-decoder"
    found = parse_generation(checkpoint.generation, checkpoint.spec.vocab, checkpoint.config, answers=answers)
    if answers and found.decoder_start is None:
        message = "neither generation_config.json nor config.json has a decoder_start_token_id"
        raise CheckpointError(message, "add it, or download both again")
    return found


def parse_generation(
    generation: Mapping[str, Any], vocab: int, config: Mapping[str, Any] | None = None, *, answers: bool = False
) -> GenerationConfig:
    """The settings in generation_config.json (`generation`) and config.json (`config`), for a vocabulary of `vocab` ids.

    config.json gives token ids, and in older folders, which lack generation_config.json, all settings. A model that `answers` (an
    encoder-decoder) is greedy unless the folder turns sampling on, and its max_length counts the answer and the start token.
    Raises CheckpointError for an invalid value.
    """
    config = config or {}
    reader = _reader(generation, vocab, config)
    first = reader.ids("forced_bos_token_id")
    return GenerationConfig(
        options=reader.options(answers),
        start_token=_start_token(("bos_token_id",), generation, config, vocab),
        decoder_start=_start_token(("decoder_start_token_id", "bos_token_id"), generation, config, vocab),
        end_tokens=_end_tokens(generation, config, vocab),
        length_penalty=reader.length_penalty(),
        early_stopping=reader.early_stopping(),
        min_length=reader.count("min_length"),
        bad_words=reader.words("bad_words_ids"),
        forced_first=first[0] if first else None,
        forced_last=reader.ids("forced_eos_token_id"),
        suppressed=reader.ids("suppress_tokens"),
        suppressed_first=reader.ids("begin_suppress_tokens"),
        source_ngram_size=reader.count("encoder_no_repeat_ngram_size"),
        renormalised=reader.flag("renormalize_logits"),
    )


def not_honoured(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The keys with which an opened folder asks for something that tgen does not support. It does not check the other values."""
    return _reader(checkpoint.generation, checkpoint.spec.vocab, checkpoint.config).not_honoured()


def start_token(checkpoint: Checkpoint) -> int | None:
    """The id of the start token, which comes before a text; None if the folder names none."""
    return _start_token(("bos_token_id",), checkpoint.generation, checkpoint.config, checkpoint.spec.vocab)


@dataclass(frozen=True, slots=True)
class Reader:
    """The values of a file by their keys. Each method raises CheckpointError, which names the file, the key and the value."""

    file: str
    values: Mapping[str, Any]
    vocab: int

    def options(self, answers: bool) -> dict[str, int | float]:
        """Values for GenerationOptions. A folder without sampling gets temperature 0, and loses the options that have no effect then."""
        found: dict[str, int | float] = {name: self.values[name] for name in FROM_MODEL if self.values.get(name) is not None}
        longest, samples = self.values.get("max_length"), self.values.get("do_sample")
        if answers and "max_new_tokens" not in found and type(longest) is int:
            found["max_new_tokens"] = max(1, longest - 1)
        if samples is False or (answers and samples is None):
            found = {name: value for name, value in found.items() if DECLARED[name].greedy} | {"temperature": 0.0}
        for name, value in found.items():
            try:
                DECLARED[name].check(name, value)
            except UsageError as error:
                raise self.wrong(name if name in self.values else "max_length", "is not allowed", error.message) from error
        return found

    def ids(self, key: str) -> Ids:
        """One id or a list of ids, as a tuple; empty for null."""
        return self._ids(key, self.values.get(key))

    def words(self, key: str) -> tuple[Ids, ...]:
        """A list of lists of ids."""
        words = self.values.get(key) or []
        if not isinstance(words, list):
            raise self.wrong(key, "is not a list of lists of ids")
        return tuple(ids for word in words if (ids := self._ids(key, word)))

    def count(self, key: str) -> int:
        """A whole number, 0 or more."""
        value = self.values.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(key, "is not a whole number, 0 or more")
        return value

    def flag(self, key: str) -> bool:
        """True or false; null means false."""
        value = self.values.get(key) or False
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def length_penalty(self) -> float:
        """The exponent p in a beam's score: the sum of its log-probabilities / length ** p."""
        value = self.values.get("length_penalty")
        if value is None:
            return 1.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST_PENALTY <= value <= LARGEST_PENALTY:
            raise self.wrong("length_penalty", f"is not a number from -{LARGEST_PENALTY} to {LARGEST_PENALTY}")
        return float(value)

    def early_stopping(self) -> bool | Literal["never"]:
        """Whether beam search ends as soon as enough beams have ended."""
        value = self.values.get("early_stopping")
        if value is None:
            return False
        if isinstance(value, bool):
            return value
        if value != "never":
            raise self.wrong("early_stopping", "is neither true, false nor never")
        return "never"

    def not_honoured(self) -> tuple[str, ...]:
        """The keys that ask for something that tgen does not support."""
        return tuple(key for key, neutral in NOT_HONOURED.items() if self.values.get(key) is not None and self.values[key] != neutral)

    def wrong(self, key: str, problem: str, hint: str = "correct it or leave it out") -> CheckpointError:
        """The error for a key's value."""
        return CheckpointError(f"{self.file}: {key} = {self.values.get(key)!r} {problem}", hint)

    def _ids(self, key: str, value: Any) -> Ids:
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(_is_id(i, self.vocab) for i in values):
            raise self.wrong(key, f"holds something other than token ids below {self.vocab}")
        return tuple(values)


def _reader(generation: Mapping[str, Any], vocab: int, config: Mapping[str, Any]) -> Reader:
    """A reader of generation_config.json; for an older folder, which lacks that file, of the same keys in config.json."""
    if generation:
        return Reader("generation_config.json", generation, vocab)
    return Reader("config.json", {key: value for key, value in config.items() if key in SETTINGS}, vocab)


def _start_token(keys: tuple[str, ...], generation: Mapping[str, Any], config: Mapping[str, Any], vocab: int) -> int | None:
    """The value of the first of these keys that holds an id; generation_config.json comes before config.json."""
    found = (source.get(key) for source in (generation, config) for key in keys)
    return next((value for value in found if _is_id(value, vocab)), None)


def _end_tokens(generation: Mapping[str, Any], config: Mapping[str, Any], vocab: int) -> frozenset[int]:
    """The ids that end a text: those of generation_config.json, else those of config.json.

    Ids beyond the vocabulary are dropped: some folders keep the end token of the larger model that they were made from.
    """
    for file, source in (("generation_config.json", generation), ("config.json", config)):
        if source.get("eos_token_id") is not None:
            asked = source["eos_token_id"]
            known = [one for one in (asked if isinstance(asked, list) else [asked]) if type(one) is not int or one < vocab]
            return frozenset(Reader(file, {"eos_token_id": known}, vocab).ids("eos_token_id"))
    return frozenset()


def _is_id(value: object, vocab: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab
