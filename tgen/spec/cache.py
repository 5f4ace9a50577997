"""What a row's cache holds, counted in numbers; a number's size is the executor's to know."""

from __future__ import annotations

from tgen.spec.records import AttentionSpec, ModelSpec


def row_numbers(spec: ModelSpec, tokens: int, source_tokens: int = 0) -> int:
    """How many numbers a row's cache holds after so many ids, and after so many ids of a source for its encoder."""
    if spec.decoder is None:
        return 0
    own = sum(_per_token(layer.mixer) for layer in spec.decoder.layers)
    cross = sum(_per_token(layer.cross) for layer in spec.decoder.layers if layer.cross is not None)
    return own * tokens + cross * source_tokens


def _per_token(attention: AttentionSpec) -> int:
    """A key and a value for each key-value head."""
    return 2 * attention.kv_heads * attention.head_dim
