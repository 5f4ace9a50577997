"""The size of a row's cache, counted in numbers; the executor knows how many bytes a number takes."""

from __future__ import annotations

import math

from tgen.spec.records import AttentionSpec, ModelSpec

# A row holds the state before its last step and the one after it, and those of the two places that were marked last.
STATES = 4


def row_numbers(spec: ModelSpec, tokens: int, source_tokens: int = 0) -> int:
    """How many numbers of keys and values a row's cache holds for `tokens` ids and for a source of `source_tokens` ids."""
    if spec.decoder is None:
        return 0
    own = sum(map(_per_token, spec.decoder.attentions))
    cross = sum(_per_token(layer.cross) for layer in spec.decoder.layers if layer.cross is not None)
    return own * tokens + cross * source_tokens


def state_numbers(spec: ModelSpec) -> int:
    """How many numbers mixers carry from one position to the next, once for a row. They are in float32."""
    layers = spec.decoder.layers if spec.decoder else ()
    mixers = [mixer for layer in layers for mixer in layer.mixers if not isinstance(mixer, AttentionSpec)]
    return sum(math.prod(shape) for mixer in mixers for shape in mixer.carries(spec.width))


def _per_token(attention: AttentionSpec) -> int:
    """A key and a value for each key-value head; latent attention keeps its short vector and the rotated numbers of keys."""
    if attention.shares is not None:
        return 0
    if attention.latent is not None:
        return attention.latent.kv_rank + (attention.rope.dim if attention.rope else 0)
    return 2 * attention.kv_heads * attention.head_dim
