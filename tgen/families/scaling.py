"""Reads scaled rotations from the `rope_parameters` or `rope_scaling` of a config.json, by `rope_type`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tgen.errors import CheckpointError, UnsupportedError
from tgen.spec.positions import LinearScaling, Llama3Scaling, PairScaling, RopeSpec

if TYPE_CHECKING:
    from tgen.families.config import Config

LONG = ("longrope", "su")  # the second is the older name


def scaled_rope(config: Config, settings: Config, head_dim: int, share: float, theta: float) -> RopeSpec:
    """The rotations that `settings`, a part of `config`, describe. `share` is the part of each head that is rotated."""
    dim = int(head_dim * share)
    plain = RopeSpec(dim, theta)
    for key in ("mrope_section", "mrope_interleaved"):
        settings.raw(key)  # which components follow the rows and columns of an image; in a text, all follow the same position
    match settings.text("rope_type", "type", default="default"):
        case "default" | "mrope":
            return plain
        case "dynamic":
            return RopeSpec(dim, _dynamic(settings, dim, theta))
        case "linear":
            settings.raw("original_max_position_embeddings")  # the factor alone counts
            return RopeSpec(dim, theta, LinearScaling(settings.number("factor")))
        case "llama3":
            factor, low, high = (settings.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
            return RopeSpec(dim, theta, Llama3Scaling(factor, low, high, int(original_context(config, settings))))
        case "yarn":
            return RopeSpec(dim, theta, _yarn(config, settings, plain))
        case "longrope" | "su":
            return RopeSpec(dim, theta, _long(config, settings, dim))
        case "proportional":
            factor, turned = settings.number("factor", default=1.0), int(share * head_dim // 2)
            return RopeSpec(head_dim, theta, PairScaling((factor,) * turned + (math.inf,) * (head_dim // 2 - turned)))
        case kind:
            implemented = "implemented: default, linear, dynamic, llama3, yarn, longrope, proportional"
            raise UnsupportedError(f"config.json: rope_type = {kind!r} is not implemented", implemented)


def original_context(config: Config, settings: Config) -> float:
    """The length that the model was trained at before its rotations were scaled."""
    key, most = "original_max_position_embeddings", 2.0**31
    whole = config.number("max_position_embeddings", default=2048, maximum=most)
    return config.number(key, default=settings.number(key, default=whole, maximum=most), maximum=most)


def _dynamic(settings: Config, dim: int, theta: float) -> float:
    """The base. It would grow only beyond max_position_embeddings, where tgen ends; a fixed `alpha` (Hunyuan) changes it for all texts."""
    for key in ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "original_max_position_embeddings"):
        settings.raw(key)
    if not settings.raw("alpha") or dim <= 2:
        return theta
    return theta * float(settings.number("alpha", maximum=1e6) ** (dim / (dim - 2)))


def _yarn(config: Config, settings: Config, rope: RopeSpec) -> PairScaling:
    """Pairs that turn often within the original context are kept, those that turn seldom are slowed down, with a blend between."""
    settings.raw("finetuned")
    original, factor, theta = original_context(config, settings), settings.raw("factor"), rope.theta
    factor = config.number("max_position_embeddings", default=2048) / original if factor is None else settings.number("factor")
    if theta <= 1 or original < 1:
        raise CheckpointError("config.json: rope_theta and original_max_position_embeddings must exceed 1 for yarn", "download it again")

    def pair(turns: float) -> float:
        """The number of the pair that turns so often within the original context."""
        return rope.dim * (math.log(original) - math.log(turns) - math.log(2 * math.pi)) / (2 * math.log(theta))

    low, high = (pair(settings.number(key, default=turns)) for key, turns in (("beta_fast", 32.0), ("beta_slow", 1.0)))
    if settings.flag("truncate", default=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high = high + 0.001 if low == high else high
    slowed = (min(max((i - low) / (high - low), 0.0), 1.0) for i in range(rope.dim // 2))
    return PairScaling(tuple(1 / (share / factor + (1 - share)) for share in slowed), _yarn_amplitude(settings, factor))


def _yarn_amplitude(settings: Config, factor: float) -> float:
    """The factor of cosines and sines; `attn_factor` multiplies it, as in vLLM, and `attention_factor` takes its place."""

    def growth(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    both = bool(settings.raw("mscale")) and bool(settings.raw("mscale_all_dim"))
    default = growth(settings.number("mscale")) / growth(settings.number("mscale_all_dim")) if both else growth(1.0)
    return settings.number("attention_factor", default=default * settings.number("attn_factor", default=1.0))


def _long(config: Config, settings: Config, dim: int) -> PairScaling:
    """The divisors for texts within the original context, which is where tgen ends: others hold for longer texts."""
    settings.numbers("long_factor", dim // 2)
    original = original_context(config, settings)
    factor = settings.number("factor", default=config.number("max_position_embeddings", default=2048) / original)
    amplitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    settings.raw("long_mscale")
    amplitude = settings.number("attention_factor", "short_mscale", default=amplitude)
    return PairScaling(settings.numbers("short_factor", dim // 2), amplitude)
