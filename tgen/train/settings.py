"""The settings of a training run, checked on creation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from tgen.errors import UsageError

HEAD_DIM = 64
DEFAULT_HINT = "give another value, or leave the option out for its default"


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The shape of the model and the course of its training.

    Exactly one of `steps` and `minutes` ends the run. `batch` counts sequences (or sentence pairs); a step adds up the gradients of
    `accumulate` batches. A sequence has `sequence` tokens; None means as many as the context. A shorter `sequence` suits a base model,
    which has already learned to use its context. `beginnings` is the share of the sequences that begin where a document begins. The
    learning rate rises over the first `warmup` share of the run, then falls in a straight line to zero at its end. `base_share` is the
    weight of the base model in the average that is written.
    """

    width: int = 256
    layers: int = 6
    vocab: int = 4096
    context: int = 256
    sequence: int | None = None
    batch: int = 16
    accumulate: int = 1
    beginnings: float = 0.0
    base_share: float = 0.0
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: float = 0.02
    clip: float = 1.0
    validation: float = 0.02
    label_smoothing: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("training needs --steps or --minutes, and not both", "for a first try: --minutes 10")
        for name in ("width", "layers", "vocab", "context", "sequence", "batch", "accumulate", "steps", "minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}", DEFAULT_HINT)
        if self.width % HEAD_DIM:
            raise UsageError(f"--width must be a multiple of {HEAD_DIM}, the size of a head, not {self.width}", DEFAULT_HINT)
        if not 300 <= self.vocab <= 65536:
            raise UsageError(f"--vocab must be 300 (256 bytes, a special token and some merges) to 65536, not {self.vocab}", DEFAULT_HINT)
        for name in ("beginnings", "base_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name.replace('_', '-')} must be 0 to 1, not {getattr(self, name)}", DEFAULT_HINT)
        if not 0 < self.validation < 1:
            raise UsageError(f"--validation must be between 0 and 1, not {self.validation}", DEFAULT_HINT)

    @property
    def length(self) -> int:
        """Tokens in a sequence."""
        return self.context if self.sequence is None else self.sequence

    def text_config(self, vocab: int, end_token: int) -> dict[str, Any]:
        """The `config.json` of a decoder-only model of this shape, in the Llama layout of transformers."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": self.width,
            "intermediate_size": round(self.width * 8 / 3 / 64) * 64,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // HEAD_DIM,
            "num_key_value_heads": self.width // HEAD_DIM,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": end_token,
            "eos_token_id": end_token,
        }

    def pairs_config(self, vocab: int, end_token: int) -> dict[str, Any]:
        """The `config.json` of an encoder-decoder, in Marian layout: `layers` layers on each side; the start token is the end token."""
        heads = self.width // HEAD_DIM
        return {
            "architectures": ["MarianMTModel"],
            "model_type": "marian",
            "is_encoder_decoder": True,
            "vocab_size": vocab,
            "decoder_vocab_size": vocab,
            "d_model": self.width,
            "encoder_layers": self.layers,
            "decoder_layers": self.layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": 4 * self.width,
            "decoder_ffn_dim": 4 * self.width,
            "activation_function": "relu",
            "max_position_embeddings": self.context,
            "scale_embedding": True,
            "share_encoder_decoder_embeddings": True,
            "tie_word_embeddings": True,
            "decoder_start_token_id": end_token,
            "eos_token_id": end_token,
            "bos_token_id": end_token,
            "pad_token_id": end_token,
        }

    def as_dict(self) -> dict[str, Any]:
        """The settings as values for JSON; `TrainSettings(**values)` reads them back."""
        return asdict(self)
