"""Reads `config.json` as transformers 4 and transformers 5 write it. It knows no family.

The reader remembers which keys a family reads, and refuses all others unless they are known to be harmless. So it never ignores a key
that changes the model's arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeGuard

from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.scaling import LONG, original_context, scaled_rope
from tgen.spec.positions import RopeSpec
from tgen.spec.records import Activation

MAX_INTEGER, MAX_LAYERS = 2**31 - 1, 1000
MAX_NAMED = 3  # keys in one message
HINT = "config.json is damaged or was edited; download it again"

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
}

# Keys without influence on the logits of a forward pass: bookkeeping, training, token ids (read elsewhere), extra outputs, generation
# settings, choice of kernel. They are what transformers has written by default for the supported types, versions 2 to 5, and what
# known folders add. A key that matters to any family is left out: each family must read or refuse it.
HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _flash_attn_2_enabled _name_or_path
    _num_labels activation_dropout architectures attention_dropout attention_probs_dropout_prob attention_softmax_in_fp32
    attn_implementation attn_pdrop auto_map aux_loss_alpha bad_words_ids begin_suppress_tokens bias_dropout_fusion bos_token_id
    cache_implementation chunk_size_feed_forward classif_dropout classifier_dropout classifier_dropout_prob custom_pipelines
    decoder_layerdrop decoder_start_token_id directionality diversity_penalty do_sample dropout dropout_rate dtype early_stopping
    embd_pdrop embed_dropout embedding_dropout encoder_layerdrop encoder_no_repeat_ngram_size eod_token_id eos_token_id
    exponential_decay_length_penalty extra_pos_embeddings finetuning_task force_bos_token_to_be_generated forced_bos_token_id
    forced_eos_token_id gradient_checkpointing hidden_dropout hidden_dropout_prob id2label init_std initializer_factor initializer_range
    input_jitter_noise is_decoder is_encoder_decoder is_llama_config keys_to_ignore_at_inference label2id language layerdrop
    length_penalty mask_token_id masked_softmax_fusion max_length max_new_tokens max_sequence_length min_length model_max_length model_type
    moe_capacity n_ctx name neftune_noise_alpha no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences
    offset_alibi output_attentions output_hidden_states output_past output_router_logits output_scores pad_token_id padding_side
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type prefix pretraining_tp problem_type
    remove_invalid_values reorder_and_upcast_attn repetition_penalty replacing_rate resid_dropout resid_pdrop residual_dropout
    return_dict return_dict_in_generate router_aux_loss_coef save_step sbert_ce_default_activation_function sentence_transformers
    sep_token_id seq_aux skip_bias_add skip_bias_add_qkv slow_but_exact summary_activation summary_first_dropout summary_last_dropout
    summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version typical_p
    unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache use_flash_attention_2 use_flash_attn
    vocab_size_or_config_json_file xla_device
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
        """The name that picks the family."""
        return self.text("model_type")

    def raw(self, key: str) -> Any:
        """The value as it stands, None when absent."""
        self._read.add(key)
        return self.values.get(key)

    def integer(self, *keys: str, default: int | None = None, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        """The value of the first of these keys that is set, which must be a whole number within the limits."""
        value = self._first(keys, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._wrong(keys[0], value, f"a whole number from {minimum} to {maximum}")
        return value

    def layers(self, *keys: str) -> int:
        """The number of layers; the limit keeps a damaged number from filling the memory with layer specs."""
        return self.integer(*keys, maximum=MAX_LAYERS)

    def head_dim(self, width: int, heads: int) -> int:
        """The given `head_dim`, or each head's share of the width."""
        if width % heads and self.raw("head_dim") is None:
            raise CheckpointError(f"config.json: a width of {width} does not divide into {heads} heads", HINT)
        return self.integer("head_dim", default=width // heads)

    def number(self, *keys: str, default: float | None = None, maximum: float = sys.float_info.max) -> float:
        """The value of the first of these keys that is set, which must be a number above zero."""
        value = self._first(keys, default)
        if not _is_positive(value, maximum):
            raise self._wrong(keys[0], value, "a number above 0" if maximum > 1e300 else f"a number above 0, {maximum:g} at most")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` numbers above zero."""
        value = self.raw(key)
        if not isinstance(value, list) or len(value) != count or not all(map(_is_positive, value)):
            raise self._wrong(key, value, f"a list of {count} numbers above 0")
        return tuple(map(float, value))

    def flag(self, key: str, default: bool) -> bool:
        """True or false; absent and null mean the default."""
        value = self._first((key,), default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, *keys: str, default: str | None = None) -> str:
        """The value of the first of these keys that is set, which must be a string."""
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

    def kv_heads(self, heads: int) -> int:
        """The given number of key-value heads, or as many as heads."""
        kv_heads = self.integer("num_key_value_heads", default=heads)
        if heads % kv_heads:
            raise CheckpointError(f"config.json: {heads} heads cannot share {kv_heads} key-value heads evenly", HINT)
        return kv_heads

    def windows(self, count: int, sliding: Callable[[int], bool] | None = None, window: int | None = None) -> list[int | None]:
        """For each layer, how many of the latest keys a query sees; None is all of them.

        Where `layer_types` is absent, `sliding` says which layers have a window; without `sliding`, all have one. `window` is that of
        `sliding_window` unless given.
        """
        if window is None and self.raw("sliding_window") is None:
            self.require("layer_types", [["full_attention"] * count])
            return [None] * count
        window = self.integer("sliding_window") if window is None else window
        kinds = self.raw("layer_types")
        if kinds is None:
            kinds = ["sliding_attention" if sliding is None or sliding(i) else "full_attention" for i in range(count)]
        if not isinstance(kinds, list) or len(kinds) != count or not set(map(str, kinds)) <= {"sliding_attention", "full_attention"}:
            raise UnsupportedError(
                f"config.json: layer_types = {_short(kinds)} is not implemented",
                f"implemented: full_attention or sliding_attention for each of {count} layers",
            )
        return [window if kind == "sliding_attention" else None for kind in kinds]

    def activation(self, *keys: str, default: str | None = None) -> Activation:
        """The non-linearity by its transformers name."""
        name = self.text(*keys, default=default)
        if name not in ACTIVATIONS:
            raise UnsupportedError(f"config.json: {keys[0]} = {name!r} is not implemented", f"implemented: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def require(self, key: str, allowed: Collection[object]) -> None:
        """Refuse every value of a key but those that are implemented; an absent key is always fine."""
        value = self.raw(key)
        if value is not None and value not in allowed:
            implemented = " or ".join(repr(one) for one in allowed) or "a folder without it"
            raise UnsupportedError(f"config.json: {key} = {_short(value)} is not implemented", f"implemented: {implemented}")

    def refuse_unread(self) -> None:
        """Refuse keys that the family did not read and that are not known to be harmless: they may change the model's arithmetic."""
        unread = [f"{key} = {_short(value)}" for key, value in self.unread().items()]
        if unread:
            more = f" and {len(unread) - MAX_NAMED} more" if len(unread) > MAX_NAMED else ""
            raise UnsupportedError(
                f"config.json: {', '.join(unread[:MAX_NAMED])}{more} is not implemented",
                "tgen does not know what the key means; take it out of config.json if it changes nothing",
            )

    def unread(self) -> dict[str, Any]:
        """The keys that the family did not read and that are not known to be harmless, those of nested objects with their place."""
        own = {key: value for key, value in self.values.items() if not (key in self._read or key in HARMLESS or _is_empty(value))}
        for name, nested in self._nested.items():
            own |= {f"{name}.{key}": value for key, value in nested.unread().items()}
        return own

    def absent(self) -> set[str]:
        """The keys that the family looked for in vain."""
        return self._read - self.values.keys()

    def rope(self, head_dim: int, default_theta: float = 10000.0, partial: float | None = None, kind: str | None = None) -> RopeSpec:
        """Rotary settings from either dialect: `rope_parameters`, or `rope_theta` with `rope_scaling`.

        `partial` is the share of each head that is rotated if the folder does not say; None allows only whole heads. `kind` is the kind
        of layer whose settings to take if `rope_parameters` has a set for each kind.
        """
        nested = self.rope_settings(kind)
        theta = nested.number("rope_theta", default=self.number("rope_theta", "rotary_emb_base", default=default_theta))
        if partial is None and nested.raw("rope_type") != "proportional":
            self.require("partial_rotary_factor", [1.0])
            nested.require("partial_rotary_factor", [1.0])
            share = 1.0
        else:
            share = nested.number(
                "partial_rotary_factor", default=self.number("partial_rotary_factor", "rotary_pct", default=partial or 1.0)
            )
        dim = int(head_dim * share) if share <= 1 else 0
        if dim % 2 or not dim:
            of = "" if share == 1 else f"a share of {share:g} of "
            raise CheckpointError(f"config.json: {of}heads of {head_dim} numbers cannot be rotated in pairs", HINT)
        return scaled_rope(self, nested, head_dim, share, theta)

    def rope_settings(self, kind: str | None = None) -> Config:
        """The keys of `rope_parameters` or `rope_scaling`, for one kind of layer where there is a set for each."""
        name = "rope_parameters" if kind is None else f"rope_parameters.{kind}"
        if name not in self._nested:
            values = self.mapping("rope_parameters")
            if kind is not None and kind in values:
                values = self._nested.setdefault("rope_parameters", Config(values)).mapping(kind)
            self._nested[name] = Config({**self.mapping("rope_scaling"), **values})
        return self._nested[name]

    def context(self, default: int) -> int:
        """The longest text that the model reads. LongRoPE changes every rotation beyond its original context, so tgen ends there."""
        context, settings = self.integer("max_position_embeddings", default=default), self.rope_settings()
        if settings.text("rope_type", "type", default="default") not in LONG:
            return context
        return min(context, max(int(original_context(self, settings)), 1))

    def absorb(self, other: Config) -> None:
        """Treat keys that another reader of the same values has read as read here, too."""
        self._read |= other._read
        self._nested |= other._nested

    def part(self, key: str, values: dict[str, Any]) -> Config:
        """A reader for a nested object, whose unread keys are refused as this reader's own are."""
        return self._nested.setdefault(key, Config(values))

    def _first(self, keys: Iterable[str], default: object) -> object:
        found = [value for key in keys if (value := self.raw(key)) is not None]
        return found[0] if found else default

    def _wrong(self, key: str, value: object, expected: str) -> CheckpointError:
        if value is None:
            return CheckpointError(f"config.json: {key} is missing", f"it should be {expected}")
        return CheckpointError(f"config.json: {key} = {_short(value)} is not {expected}", HINT)


def _is_positive(value: object, maximum: float = sys.float_info.max) -> TypeGuard[float]:
    """Whether a value is a number above zero, no larger than the maximum."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= maximum


def _is_empty(value: object) -> bool:
    """Whether a value is null or empty. Zero and false are neither: they may switch something off."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def _short(value: object) -> str:
    """A value for a message: nested ones may be long."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
