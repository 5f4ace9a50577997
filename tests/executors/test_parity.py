"""Every family gives the logits and attention maps that transformers gives, whichever way they are computed.

The golden folders hold random numbers in every parameter, so that each one that is dropped, swapped or misread shows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DECODERS, GOLDEN, GOLDENS, golden_model, golden_reference
from tests.sweeps import KINDS, sweep
from tgen.checkpoint.container import open_checkpoint
from tgen.executors.torch.attention import Attend, Attention, fused_attend, plain_attend
from tgen.executors.torch.cache import Row, Source
from tgen.executors.torch.load import load_model
from tgen.executors.torch.maps import recording
from tgen.executors.torch.transformer import Transformer
from tgen.spec.positions import PairScaling, RelativeBias, RopeSpec
from tgen.spec.records import (
    Activation,
    AttentionSpec,
    FeedForward,
    LayerSpec,
    Mixer,
    MlpSpec,
    ModelSpec,
    RouterSpec,
    SideBySideSpec,
    StackSpec,
)
from tgen.spec.recurrent import StateSpaceSpec
from tgen.spec.shapes import parameters

TOLERANCE = 1e-5

every_golden = pytest.mark.parametrize("name", GOLDENS)
every_kind = pytest.mark.parametrize("name", sweep(GOLDENS, KINDS.__contains__))
every_decoder = pytest.mark.parametrize("name", DECODERS)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@dataclass(frozen=True)
class Texts:
    """Rows of ids and their positions, each [rows, n], with the source texts they answer, and the expected logits of some of them."""

    ids: np.ndarray
    positions: np.ndarray
    source: np.ndarray | None
    source_positions: np.ndarray | None
    logits: np.ndarray

    def rows(self, rows: list[int]) -> Texts:
        """The texts with rows dropped, repeated or reordered; the logits stay."""
        source, positions = (None if array is None else array[rows] for array in (self.source, self.source_positions))
        return Texts(self.ids[rows], self.positions[rows], source, positions, self.logits)


def one_text(name: str) -> Texts:
    """The golden's single text."""
    reference = golden_reference(name)
    source = reference["source"][None] if "source" in reference else None
    return Texts(reference["ids"][None], np.arange(len(reference["ids"]))[None], source, None, reference["logits"])


def padded_texts(name: str) -> Texts:
    """The golden's batch, with logits for every position except padding."""
    reference = golden_reference(name)
    keys = ("ids", "positions", "source", "source_positions", "logits")
    return Texts(*(reference.get(f"batch_{key}") for key in keys))  # type: ignore[arg-type]


def difference(found: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)


def read_source(model: Transformer, texts: Texts) -> Source | None:
    return None if texts.source is None else model.read_source(torch.from_numpy(texts.source), tensor(texts.source_positions))


def opened(model: Transformer, texts: Texts) -> list[Row]:
    """Rows that have read nothing, each with its own source, where there is one."""
    if texts.source is None:
        return [model.open_row() for _ in texts.ids]
    places = np.zeros_like(texts.source) if texts.source_positions is None else texts.source_positions
    sources = model.read_sources([list(row[at >= 0]) for row, at in zip(texts.source, places, strict=True)])
    return [model.open_row(source) for source in sources]


def read(model: Transformer, rows: list[Row], ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """Logits of a further block, [rows, n, vocab]; rows of padding only read nothing."""
    real = positions >= 0
    reading = [row for number, row in enumerate(rows) if real[number].any()]
    blocks = [list(ids[number, real[number]]) for number in range(len(rows)) if real[number].any()]
    found = torch.zeros(*ids.shape, model.spec.vocab)
    if blocks:
        found[torch.from_numpy(real)] = model.logits(model.read(reading, blocks))
    for row, block in zip(reading, blocks, strict=True):
        row.length += len(block)
    return found


def full(model: Transformer, texts: Texts, *, positions: bool = True) -> torch.Tensor:
    """Logits of everything at once, without a cache; hidden states where there is no head."""
    places = tensor(texts.positions) if positions else None
    hidden = model(torch.from_numpy(texts.ids), places, source=read_source(model, texts))
    return hidden if model.head is None else model.logits(hidden)


def in_blocks(model: Transformer, texts: Texts, edges: Iterable[int]) -> torch.Tensor:
    """Logits of texts read in blocks from edge to edge."""
    state = opened(model, texts)
    return torch.cat([read(model, state, texts.ids[:, a:b], texts.positions[:, a:b]) for a, b in pairwise(edges)], dim=1)


def with_attend(name: str, attend: Attend) -> Transformer:
    model = copy.deepcopy(golden_model(name))
    for module in model.modules():
        if isinstance(module, Attention):
            module.attend = attend
    return model


@every_golden
@pytest.mark.parametrize("attend", [fused_attend, plain_attend])
def test_full(name: str, attend: Attend) -> None:
    texts, model = one_text(name), with_attend(name, attend)
    for positions in (True, False):
        assert difference(full(model, texts, positions=positions)[0], texts.logits) < TOLERANCE


@every_decoder
@pytest.mark.parametrize("edges", [range(17), [0, 1, 4, 5, 13, 14, 16], [0, 16]], ids=["steps", "ragged", "whole"])
def test_cached(name: str, edges: Iterable[int]) -> None:
    texts = one_text(name)
    assert difference(in_blocks(golden_model(name), texts, edges)[0], texts.logits) < TOLERANCE


@every_golden
@pytest.mark.parametrize("attend", [fused_attend, plain_attend])
def test_left_padded_batch(name: str, attend: Attend) -> None:
    """The expected logits come from padding on the right, and so from other positions in the arrays."""
    texts, model = padded_texts(name), with_attend(name, attend)
    real = texts.positions >= 0
    assert difference(full(model, texts)[torch.from_numpy(real)], texts.logits) < TOLERANCE
    if name in DECODERS:
        found = in_blocks(model, texts, (0, 2, 3, 7))
        assert not found.isnan().any()
        assert difference(found[torch.from_numpy(real)], texts.logits) < TOLERANCE


@every_golden
def test_attention_maps(name: str) -> None:
    """Of every layer and head: a decoder's, an encoder's, and those between."""
    model, texts, reference = golden_model(name), one_text(name), golden_reference(name)
    with recording(model) as recorder:
        found = full(model, texts)
    assert difference(found[0], texts.logits) < TOLERANCE
    assert set(recorder.maps) == {key.removesuffix("_maps") for key in reference if key.endswith("_maps")}
    for kind, maps in recorder.maps.items():
        np.testing.assert_allclose(np.concatenate(maps), reference[f"{kind}_maps"], rtol=0, atol=TOLERANCE)


@every_decoder
def test_truncate(name: str) -> None:
    """Ids that were read and then cut off do not affect later logits."""
    texts, model = one_text(name), golden_model(name)
    ids, places = texts.ids, texts.positions
    state = opened(model, texts)
    read(model, state, ids[:, :10], places[:, :10])
    read(model, state, ids[:, :5], places[:, :5])
    state[0].length = 10
    assert difference(read(model, state, ids[:, 10:], places[:, 10:])[0], texts.logits[10:]) < TOLERANCE
    state[0].length = 0
    assert difference(read(model, state, ids, places)[0], texts.logits) < TOLERANCE


@every_decoder
def test_truncate_rows_unlike(name: str) -> None:
    """Rows cut at different places go on side by side."""
    texts, model = one_text(name).rows([0, 0]), golden_model(name)
    ids, places = texts.ids, texts.positions
    state = opened(model, texts)
    read(model, state, ids[:, :10], places[:, :10])
    state[1].length = 7
    rest = np.stack([ids[0, 10:16], ids[1, 7:13]]), np.stack([places[0, 10:16], places[1, 7:13]])
    for column in range(6):
        found = read(model, state, *(array[:, column : column + 1] for array in rest))
        assert difference(found[0, 0], texts.logits[10 + column]) < TOLERANCE
        assert difference(found[1, 0], texts.logits[7 + column]) < TOLERANCE


@every_decoder
def test_select(name: str) -> None:
    """Rows may be dropped, repeated and reordered, and go on as if they had always been where they are."""
    texts, model = padded_texts(name), golden_model(name)
    expected = np.zeros((*texts.ids.shape, model.spec.vocab), dtype=np.float32)
    expected[texts.positions >= 0] = texts.logits
    state = opened(model, texts)
    read(model, state, texts.ids[:, :6], texts.positions[:, :6])
    for rows in ([2, 0, 2], [1, 0]):  # a second selection, from the rows of the first
        state = [state[row].copy() for row in rows]
        texts, expected = texts.rows(rows), expected[rows]
    assert difference(read(model, state, texts.ids[:, 6:], texts.positions[:, 6:]), expected[:, 6:]) < TOLERANCE


@every_kind
def test_every_parameter_shows(name: str) -> None:
    """The reference can fail: shifting the numbers of any single parameter by one place moves the logits far beyond the tolerance."""
    texts, model = one_text(name), copy.deepcopy(golden_model(name))
    rotated = any(attention.rope for stack in model.spec.stacks.values() for attention in stack.attentions)
    for parameter, tensor in model.named_parameters():
        if parameter.endswith("k.bias") and not rotated:
            continue  # adds the same to a query's scores of all keys, which softmax does not see
        original = tensor.clone()
        tensor.copy_(original.roll(1, dims=-1) if original.numel() > 1 else original + 0.5)
        assert difference(full(model, texts)[0], texts.logits) > 50 * TOLERANCE, parameter
        tensor.copy_(original)


@every_kind
def test_every_setting_shows(name: str) -> None:
    """The reference can fail: so does changing any number of the spec that is not a shape."""
    texts, model = one_text(name), golden_model(name)
    settings = list(changed(model.spec))
    assert settings
    for what, spec in settings:
        other = Transformer(spec)
        other.load_state_dict(model.state_dict())
        assert difference(full(other, texts)[0], texts.logits) > 10 * TOLERANCE, what


def changed(spec: ModelSpec) -> Iterator[tuple[str, ModelSpec]]:
    """The spec with one setting changed at a time."""
    for name, stack in spec.stacks.items():
        for what, other in changed_stack(stack):
            yield f"{name}: {what}", replace(spec, encoder=other) if name == "encoder" else replace(spec, decoder=other)
    if spec.head is not None:
        for key in ("scale", "softcap"):
            if getattr(spec.head, key):
                yield f"head: {key}", replace(spec, head=nudged(spec.head, key))


def changed_stack(stack: StackSpec) -> Iterator[tuple[str, StackSpec]]:
    kinds = ((type(layer.mixer), getattr(layer.mixer, "shares", None) is None) for layer in stack.layers)
    for number in {kind: number for number, kind in enumerate(kinds)}.values():  # the last of each kind
        for what, layer in changed_layer(stack.layers[number], causal=stack.causal):
            yield f"layer {number}: {what}", replace(stack, layers=(*stack.layers[:number], layer, *stack.layers[number + 1 :]))
    for norm in ("final_norm", "embedding_norm"):
        if (found := getattr(stack, norm)) is not None:
            yield norm, replace(stack, **{norm: replace(found, eps=found.eps + 0.05)})
    if stack.embedding_scale is not None:
        yield "embedding scale", nudged(stack, "embedding_scale")
    if stack.positions is not None and stack.positions.kind == "learned":
        yield "positions", replace(stack, positions=replace(stack.positions, offset=stack.positions.offset + 1))
        if stack.embedding_norm is not None:
            yield "positions and norm", replace(stack, positions_last=not stack.positions_last)
    if stack.relative is not None and stack.relative.max_distance is not None:
        yield "farthest", replace(stack, relative=replace(stack.relative, max_distance=stack.relative.max_distance // 4))
    if isinstance(stack.bias, RelativeBias):
        for changes in ({"max_distance": stack.bias.max_distance * 2}, {"bidirectional": not stack.bias.bidirectional}):
            yield str(changes), replace(stack, bias=replace(stack.bias, **changes))


def changed_layer(layer: LayerSpec, *, causal: bool) -> Iterator[tuple[str, LayerSpec]]:
    changes: dict[str, Any]
    for part in ("mixer", "cross"):
        for what, other in changed_mixer(getattr(layer, part), own=part == "mixer", causal=causal):
            changes = {part: other}
            yield f"{part} {what}", replace(layer, **changes)
    if layer.streams is not None:
        yield "active stream", replace(layer, streams=replace(layer.streams, active=layer.streams.active - 1))
    yield "epsilon", replace(layer, norm=replace(layer.norm, eps=layer.norm.eps + 0.05))
    if layer.feed_forward is not None:
        yield from ((what, replace(layer, feed_forward=other)) for what, other in changed_feed_forward(layer.feed_forward))


def changed_mixer(mixer: Mixer | None, *, own: bool, causal: bool) -> Iterator[tuple[str, Mixer]]:
    match mixer:
        case None:
            return
        case AttentionSpec():
            yield from changed_attention(mixer, own=own, causal=causal)
        case SideBySideSpec(mixers):
            for number, one in enumerate(mixers):
                for what, other in changed_mixer(one, own=own, causal=causal):
                    assert not isinstance(other, SideBySideSpec)
                    yield f"{number}: {what}", replace(mixer, mixers=(*mixers[:number], other, *mixers[number + 1 :]))
            yield from changed_numbers(mixer, "in_scales")
            yield from changed_numbers(mixer, "out_scales")
        case _:
            if getattr(mixer, "norm_eps", None) is not None:
                yield "norm", nudged(mixer, "norm_eps", by=2)
            if isinstance(mixer, StateSpaceSpec) and mixer.norm_eps is not None:
                yield "gate", replace(mixer, gate_last=not mixer.gate_last)
                yield "groups of the norm", replace(mixer, norm_groups=3 - mixer.norm_groups)
            if isinstance(mixer, StateSpaceSpec) and mixer.steps[1] < math.inf:
                yield "steps", replace(mixer, steps=(0.0, math.inf))
            if isinstance(mixer, StateSpaceSpec) and mixer.scales is not None:
                yield from changed_numbers(mixer, "scales")


def changed_feed_forward(part: FeedForward) -> Iterator[tuple[str, FeedForward]]:
    if isinstance(part, MlpSpec):
        if part.cutoff is not None:
            yield "cutoff", nudged(part, "cutoff")
        if part.clamp is not None:
            yield from ((key, replace(part, clamp=nudged(part.clamp, key))) for key in ("alpha", "limit"))
        elif part.activation != "xielu":  # its parameters show
            activation: Activation = "silu" if part.activation == "relu" else "relu"
            yield "activation", replace(part, activation=activation)
        yield from ((key, nudged(part, key)) for key in ("gate_scale", "out_scale") if getattr(part, key) != 1)
        return
    changes: dict[str, Any]
    for key in ("expert", "shared"):
        if (inner := getattr(part, key)) is not None:
            for what, other in changed_feed_forward(inner):
                changes = {key: other}
                yield f"{key} {what}", replace(part, **changes)
    for what, router in changed_router(part.router):
        yield f"router: {what}", replace(part, router=router)


def changed_router(router: RouterSpec) -> Iterator[tuple[str, RouterSpec]]:
    if router.scores == "sparsemixer":
        yield "jitter", nudged(router, "jitter", by=8)
        return
    yield "chosen", replace(router, chosen=router.chosen - 1)
    yield "scores", replace(router, scores="sigmoid" if router.scores == "softmax" else "softmax")
    yield "normalised", replace(router, normalised=not router.normalised)
    yield "scale", nudged(router, "scale")
    if router.groups > 1:
        yield "groups", replace(router, groups=router.groups // 2, kept_groups=1)
        yield "kept groups", replace(router, kept_groups=router.groups)
        yield "best of a group", replace(router, group_best=3 - router.group_best)


def changed_attention(attention: AttentionSpec, *, own: bool, causal: bool) -> Iterator[tuple[str, AttentionSpec]]:
    rope = attention.rope
    for key in ("scale", "softcap"):
        if getattr(attention, key):
            yield key, nudged(attention, key)
    if own and (causal or attention.window):
        yield "window", replace(attention, window=(attention.window or 16) // 2)
    if attention.latent is not None:
        norm = attention.latent.norm
        yield "latent norm", replace(attention, latent=replace(attention.latent, norm=replace(norm, eps=norm.eps + 0.05)))
    if attention.qk_norm is not None:
        yield "qk_norm", replace(attention, qk_norm=replace(attention.qk_norm, eps=attention.qk_norm.eps + 0.05))
    if attention.v_norm is not None and attention.shares is None:
        yield "v_norm", replace(attention, v_norm=replace(attention.v_norm, eps=attention.v_norm.eps + 0.05))
    if rope is not None:
        yield from ((key, replace(attention, rope=other)) for key, other in changed_rope(rope, attention))
    if own:
        yield from changed_steps(attention)


def changed_rope(rope: RopeSpec, attention: AttentionSpec) -> Iterator[tuple[str, RopeSpec]]:
    yield "theta", nudged(rope, "theta")
    if isinstance(rope.scaling, PairScaling):
        yield "amplitude", replace(rope, scaling=nudged(rope.scaling, "amplitude"))
        for pair, divisor in enumerate(rope.scaling.divisors):
            other = 9.0 if math.isinf(divisor) else divisor * 1.5
            yield f"divisor {pair}", replace(rope, scaling=replace(rope.scaling, divisors=swapped(rope.scaling.divisors, pair, other)))
        return
    if attention.latent is None:  # where it is a shape
        yield "dim", replace(rope, dim=rope.dim + (2 if rope.dim < attention.head_dim else -2))
    for key in asdict(rope.scaling) if rope.scaling else ():
        yield key, replace(rope, scaling=nudged(rope.scaling, key, by=2))


def changed_steps(attention: AttentionSpec) -> Iterator[tuple[str, AttentionSpec]]:
    """What happens to queries, keys and values on their way to the scores."""
    if attention.clip is not None:
        yield "clip", nudged(attention, "clip")
    if attention.qk_norm is not None and attention.rope is not None and attention.qk_norm.weight:
        yield "norm after rotation", replace(attention, qk_norm_after_rope=not attention.qk_norm_after_rope)
    if attention.qk_norm_span != "head" and attention.qk_norm is not None:
        yield "span", replace(attention, qk_norm_span="width" if attention.qk_norm_span == "own" else "own")
    if attention.distances is not None:
        yield "distances", replace(attention, distances=replace(attention.distances, max_distance=attention.distances.max_distance * 2))
    if attention.query_growth is not None:
        yield "growth", replace(attention, query_growth=nudged(attention.query_growth, "beta"))
        yield "span of growth", replace(attention, query_growth=replace(attention.query_growth, span=attention.query_growth.span + 1))


def changed_numbers(record: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The record with each number of a list a little larger."""
    numbers = getattr(record, key)
    for place, number in enumerate(numbers):
        yield f"{key} {place}", replace(record, **{key: swapped(numbers, place, number * 1.2)})


def swapped(numbers: tuple[float, ...], place: int, number: float) -> tuple[float, ...]:
    return (*numbers[:place], number, *numbers[place + 1 :])


def nudged(record: Any, key: str, by: float = 1.2) -> Any:
    """The record with one number a little larger."""
    return replace(record, **{key: getattr(record, key) * by})


@every_golden
def test_parameters_are_those_of_the_module(name: str) -> None:
    """Each once, in a state too: the head of a tied model shares the embedding's."""
    for model in (golden_model(name), copy.deepcopy(golden_model(name))):
        assert parameters(model.spec) == {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        assert parameters(model.spec) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def all_logits(reference: dict[str, np.ndarray]) -> np.ndarray:
    """The expected logits of the single text and of the batch."""
    return np.concatenate([reference["logits"], reference["batch_logits"]])


def bfloat16_logits(reference: dict[str, np.ndarray]) -> np.ndarray:
    """The same as transformers computes them in bfloat16."""
    bits = np.concatenate([reference["bfloat16_logits"], reference["bfloat16_batch_logits"]])
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounding_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square of the differences."""
    return float(np.sqrt(np.square(found - expected).mean()))


@every_golden
def test_bfloat16(name: str) -> None:
    """In bfloat16 logits are no further from those in float32 than transformers' are, but for chance, and as near to transformers'."""
    reference, batch = golden_reference(name), padded_texts(name)
    model = load_model(open_checkpoint(GOLDEN / name), torch.device("cpu"), torch.bfloat16)
    one, several = full(model, one_text(name))[0], full(model, batch)[torch.from_numpy(batch.positions >= 0)]
    assert one.dtype == several.dtype == torch.bfloat16
    found, theirs, exact = torch.cat([one, several]).float().numpy(), bfloat16_logits(reference), all_logits(reference)
    allowed = 1.25 * rounding_error(theirs, exact)
    assert 0 < rounding_error(found, exact) <= allowed
    assert rounding_error(found, theirs) <= 1.5 * allowed


@every_kind
def test_transformers_agrees_today(name: str) -> None:
    """Everything stored is what an installed transformers gives for the stored folder."""
    pytest.importorskip("transformers")
    from tests.golden import make

    model = make.auto_class(make.ALL[name]).from_pretrained(GOLDEN / name, dtype=torch.float32, **make.EAGER)
    found, expected = make.reference(model, seed=make.seed_of(name)), golden_reference(name)
    rounded = make.rounded(GOLDEN / name, make.ALL[name], expected)
    assert found.keys() | rounded.keys() == expected.keys()
    for key, array in found.items():
        assert expected[key].shape == array.shape
        assert difference(array, expected[key]) < TOLERANCE, key
    # Sums are taken in another order by another version, and in bfloat16 that shows.
    assert rounding_error(bfloat16_logits(rounded), bfloat16_logits(expected)) < rounding_error(
        bfloat16_logits(expected), all_logits(expected)
    )
