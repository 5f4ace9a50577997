"""One reader for `config.json` in both dialects of transformers, 4 and 5. Knows no family.

Every key that is read is remembered, so that what nobody read can be named: a key that changes arithmetic is read or refused, never
ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any

from tgen.errors import CheckpointError, UnsupportedError
from tgen.spec import Activation, LinearScaling, Llama3Scaling, RopeSpec

MAX_INTEGER, MAX_LAYERS = 2**31 - 1, 1000
HINT = "config.json is damaged or was edited; download it again"

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}

# Keys without influence on the logits of a forward pass: bookkeeping, training, token ids (read elsewhere), output selection.
HARMLESS = frozenset(
    """
    _name_or_path architectures attention_dropout attn_pdrop auto_map bos_token_id chunk_size_feed_forward decoder_start_token_id dtype
    embd_pdrop eos_token_id finetuning_task gradient_checkpointing hidden_dropout hidden_dropout_prob id2label initializer_range
    is_encoder_decoder keys_to_ignore_at_inference label2id layer_norm_epsilon masked_softmax_fusion max_length max_window_layers
    model_type n_ctx n_inner n_positions offset_alibi output_attentions output_hidden_states pad_token_id pretraining_tp problem_type
    reorder_and_upcast_attn resid_pdrop return_dict scale_attn_weights seq_length skip_bias_add skip_bias_add_qkv slow_but_exact
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params
    tie_word_embeddings tokenizer_class torch_dtype transformers_version unk_token_id use_cache
    """.split()
)


class Config:
    """A `config.json` that remembers which of its keys were read.

    Raises CheckpointError for a value of the wrong type, UnsupportedError for a variant that is not implemented.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self._read: set[str] = set()
        self._nested: dict[str, Config] = {}

    @property
    def model_type(self) -> str:
        """What picks the family."""
        return self.text("model_type")

    def raw(self, key: str) -> Any:
        """The value as it stands, None when absent."""
        self._read.add(key)
        return self.values.get(key)

    def integer(self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        """The first of these keys that holds a whole number within the limits."""
        value = self._first(keys, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._wrong(keys[0], value, f"a whole number from {minimum} to {maximum}")
        return value

    def layers(self, *keys: str) -> int:
        """How many layers; a damaged number shall not fill the memory with their specs."""
        return self.integer(*keys, maximum=MAX_LAYERS)

    def head_dim(self, width: int, heads: int) -> int:
        """The given `head_dim`, or each head's share of the width."""
        if width % heads and self.raw("head_dim") is None:
            raise CheckpointError(f"config.json: a width of {width} does not divide into {heads} heads", HINT)
        return self.integer("head_dim", default=width // heads)

    def number(self, *keys: str, default: float | None = None) -> float:
        """The first of these keys that holds a number above zero."""
        value = self._first(keys, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
            raise self._wrong(keys[0], value, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false; absent and null mean the default."""
        value = self._first((key,), default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, *keys: str, default: str | None = None) -> str:
        """The first of these keys that holds a string."""
        value = self._first(keys, default)
        if not isinstance(value, str):
            raise self._wrong(keys[0], value, "a string")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A JSON object; absent and null mean an empty one."""
        value = self._first((key,), {})
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return value

    def activation(self, *keys: str, default: str | None = None) -> Activation:
        """The non-linearity by its transformers name."""
        name = self.text(*keys, default=default)
        if name not in ACTIVATIONS:
            raise UnsupportedError(f"config.json: {keys[0]} = {name!r} is not implemented", f"implemented: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def require(self, key: str, allowed: Collection[object]) -> None:
        """Refuse any value of a key but the ones that are implemented (absent always is)."""
        value = self.raw(key)
        if value is not None and value not in allowed:
            implemented = " or ".join(repr(one) for one in allowed) or "a folder without it"
            raise UnsupportedError(f"config.json: {key} = {_short(value)} is not implemented", f"implemented: {implemented}")

    def unread(self) -> dict[str, Any]:
        """Keys that no one read and that are not known to be harmless, where they hold something."""
        own = {key: value for key, value in self.values.items() if key not in self._read and key not in HARMLESS and value}
        for name, nested in self._nested.items():
            own |= {f"{name}.{key}": value for key, value in nested.unread().items()}
        return own

    def rope(self, head_dim: int, default_theta: float = 10000.0) -> RopeSpec:
        """Rotary settings of whole heads from either dialect: `rope_parameters`, or `rope_theta` with `rope_scaling`."""
        nested = Config({**self.mapping("rope_scaling"), **self.mapping("rope_parameters")})
        self._nested["rope_parameters"] = nested
        theta = nested.number("rope_theta", default=self.number("rope_theta", default=default_theta))
        for config in (self, nested):
            config.require("partial_rotary_factor", [1.0])
        if head_dim % 2:
            raise CheckpointError(f"config.json: heads of {head_dim} numbers cannot be rotated in pairs", HINT)
        return RopeSpec(dim=head_dim, theta=theta, scaling=self._scaling(nested))

    def _scaling(self, nested: Config) -> LinearScaling | Llama3Scaling | None:
        kind = nested.text("rope_type", "type", default="default")
        match kind:
            case "default":
                return None
            case "linear":
                return LinearScaling(nested.number("factor"))
            case "llama3":
                return Llama3Scaling(
                    nested.number("factor"),
                    nested.number("low_freq_factor"),
                    nested.number("high_freq_factor"),
                    nested.integer("original_max_position_embeddings"),
                )
        raise UnsupportedError(f"config.json: rope_type = {kind!r} is not implemented", "implemented: default, linear, llama3")

    def _first(self, keys: Iterable[str], default: object) -> object:
        found = [value for key in keys if (value := self.raw(key)) is not None]
        return found[0] if found else default

    def _wrong(self, key: str, value: object, expected: str) -> CheckpointError:
        if value is None:
            return CheckpointError(f"config.json: {key} is missing", f"it should be {expected}")
        return CheckpointError(f"config.json: {key} = {_short(value)} is not {expected}", HINT)


def _short(value: object) -> str:
    """A value for a message: nested ones may be long."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
