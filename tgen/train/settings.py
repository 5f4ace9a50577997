"""What a training run is asked to do, checked on creation. Knows no tensors and no files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tgen.errors import UsageError

HEAD_DIM = 64


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The shape of the model and the course of its training.

    Exactly one of `steps` and `minutes` ends the run. `batch` counts sequences of `context` tokens. The learning rate rises over the
    first `warmup` share of the run and falls along a cosine to a tenth at its end.
    """

    width: int = 256
    layers: int = 6
    vocab: int = 4096
    context: int = 256
    batch: int = 16
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: float = 0.02
    clip: float = 1.0
    validation: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("training needs either --steps or --minutes", "for a first try: --minutes 10")
        for name in ("width", "layers", "vocab", "context", "batch", "steps", "minutes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
        if self.width % HEAD_DIM:
            raise UsageError(f"--width must be a multiple of {HEAD_DIM}, the size of a head, not {self.width}")
        if self.vocab < 300:
            raise UsageError(f"--vocab must be at least 300 (256 bytes, a special token and some merges), not {self.vocab}")
        if not 0 < self.validation < 1:
            raise UsageError(f"--validation must be between 0 and 1, not {self.validation}")

    def model_config(self, vocab: int, end_token: int) -> dict[str, Any]:
        """The `config.json` of a model of this shape, in transformers' words."""
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

    def as_dict(self) -> dict[str, Any]:
        """For a file beside the checkpoints."""
        return asdict(self)
