"""The size of a row's cache, counted in numbers; the executor knows how many bytes a number takes."""

from __future__ import annotations

from tgen.spec.records import AttentionSpec, ModelSpec


def row_numbers(spec: ModelSpec, tokens: int, source_tokens: int = 0) -> int:
    """How many numbers a row's cache holds for `tokens` ids and for a source of `source_tokens` ids."""
    if spec.decoder is None:
        return 0
    own = sum(_per_token(layer.mixer) for layer in spec.decoder.layers)
    cross = sum(_per_token(layer.cross) for layer in spec.decoder.layers if layer.cross is not None)
    return own * tokens + cross * source_tokens


def _per_token(attention: AttentionSpec) -> int:
    """A key and a value for each key-value head; latent attention keeps its short vector and the rotated numbers of keys."""
    if attention.latent is not None:
        return attention.latent.kv_rank + (attention.rope.dim if attention.rope else 0)
    return 2 * attention.kv_heads * attention.head_dim
