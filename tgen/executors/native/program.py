"""Compiles a model's spec into programs: lists of a few kinds of instruction, which the library runs without knowing the architecture.

Between instructions, named places hold a token's numbers: the residual stream x; y, the result that is added to x next; hidden, the vector
that the next matrix reads; projected queries, keys and values; mixed heads; the inner vector of a feed-forward part; the router's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tgen.executors.native import interface as c
from tgen.spec.positions import Alibi, RelativeBias, RopeSpec
from tgen.spec.records import AttentionSpec, ExpertsSpec, FeedForward, LayerSpec, MlpSpec, ModelSpec, NormSpec, StackSpec

NONE = -1
CONSTANTS = ("xielu", "clamped")  # activations that have constants
Item = TypeVar("Item")


@dataclass(slots=True)
class Programs:
    """A model's programs, and the parameters and tables to which they refer by number.

    `matrices`, `norms`, `ropes` and `distances` map each of these to its number. `widths` are maxima over all layers: the numbers that a
    token takes in x, projected, mixed, inner and routed; and of a mixture, the experts, the experts of a token and an expert's inner width.
    """

    spec: ModelSpec
    matrices: dict[str, int] = field(default_factory=dict)
    norms: dict[tuple[str, NormSpec, int], int] = field(default_factory=dict)
    ropes: dict[RopeSpec, int] = field(default_factory=dict)
    distances: dict[tuple[str, Alibi | RelativeBias], int] = field(default_factory=dict)
    widths: list[int] = field(default_factory=lambda: [0] * 8)
    named: dict[str, list[c.Instruction]] = field(default_factory=dict)


def compile_spec(
    spec: ModelSpec,
    rows_of: Callable[[str], int],
    format_of: Callable[[str], int],
    constant_of: Callable[[str], int],
    rounds_gelu: bool = False,
) -> Programs:
    """The programs for which the model has the parts: "decode" (ids to logits), "encode" (ids to hidden states of the encoder, or of a
    lone decoder), "project" (encoder states to keys and values) and "fill" (ids to logits of an encoder-only model).

    `rows_of` and `format_of` give a matrix's rows and format by its name, `constant_of` the address of a vector in float32. With
    `rounds_gelu`, the tanh approximation of GELU rounds its argument and its result to float16, as in llama.cpp.
    """
    programs = Programs(spec)
    programs.widths[0] = spec.width
    if spec.decoder is not None and spec.head is not None:
        compiler = _Compiler(programs, rows_of, format_of, constant_of, rounds_gelu)
        compiler.stack("decoder", spec.decoder)
        compiler.head()
        programs.named["decode"] = compiler.code
    name, stack = next(iter(spec.stacks.items()), ("", None))
    if stack is not None:
        compiler = _Compiler(programs, rows_of, format_of, constant_of, rounds_gelu)
        compiler.stack(name, stack)
        programs.named["encode"] = [*compiler.code]
        if stack.final_norm is not None:
            programs.named["encode"].append(compiler.join(after=compiler.norm(f"{name}.final_norm", stack.final_norm)))
        if spec.decoder is None and spec.head is not None:
            compiler.head()
            programs.named["fill"] = compiler.code
    if spec.encoder is not None and spec.decoder is not None:
        compiler = _Compiler(programs, rows_of, format_of, constant_of, rounds_gelu)
        compiler.project(spec.decoder)
        programs.named["project"] = compiler.code
    return programs


@dataclass(slots=True)
class _Compiler:
    """Writes one program. `pending` says how y must join the residual stream before anything else reads it; None if there is no y."""

    programs: Programs
    rows_of: Callable[[str], int]
    format_of: Callable[[str], int]
    constant_of: Callable[[str], int]
    rounds_gelu: bool
    code: list[c.Instruction] = field(default_factory=list)
    pending: dict[str, int] | None = None

    def stack(self, name: str, stack: StackSpec) -> None:
        """The instructions from ids to x after the last layer, without the final norm."""
        positions = NONE if stack.positions is None else self.matrix(f"{name}.positions")
        self.emit(
            c.EMBED,
            matrices=[self.matrix("embedding"), positions],
            offset=stack.positions.offset if stack.positions else 0,
            scale=1.0 if stack.embedding_scale is None else stack.embedding_scale,
            constant=self.constant_of(f"{name}.types.weight") if stack.types else 0,
        )
        if stack.embedding_norm is not None:
            self.code.append(self.join(after=self.norm(f"{name}.embedding_norm", stack.embedding_norm)))
        distances = NONE
        if stack.bias is not None:
            distances = _number(self.programs.distances, (f"{name}.bias", stack.bias))
        for number, layer in [*enumerate(stack.layers)] * stack.rounds:
            self.layer(f"{name}.layers.{number}", number, layer, stack, distances)
        self.code.append(self.settle())

    def layer(self, name: str, number: int, layer: LayerSpec, stack: StackSpec, distances: int) -> None:
        """One layer: its parts one after the other. The join before each part adds the result of the part before."""
        mixer, before, after = self.named_norm(name, layer, "mixer")
        q, k, v = (f"{name}.mixer.{letter}" for letter in "qkv")
        self.code.append(self.settle(into=before, readers=[q, k, v]))
        self.attention(f"{name}.mixer", number, layer.attention, [q, k, v], stack.causal, distances)
        self.pending = after
        if layer.cross is not None:
            _, before, after = self.named_norm(name, layer, "cross")
            self.code.append(self.settle(into=before, readers=[f"{name}.cross.q"]))
            self.attention(f"{name}.cross", number, layer.cross, [f"{name}.cross.q"], False, NONE, cross=True)
            self.pending = after
        part, before, after = self.named_norm(name, layer, "feed_forward")
        if layer.residual == "parallel":
            before = mixer if layer.shared_norm else part
        assert layer.feed_forward is not None
        self.feed_forward(f"{name}.feed_forward", layer.feed_forward, before, early=int(layer.residual == "parallel"))
        self.pending = after

    def named_norm(self, name: str, layer: LayerSpec, part: str) -> tuple[int, int, dict[str, int]]:
        """A part's norm, the norm of the vector that the part reads, and how its result joins the residual stream."""
        if layer.shared_norm and part == "feed_forward":
            return NONE, NONE, {}
        if layer.residual == "output":
            return NONE, NONE, {"before": self.norm(f"{name}.{part}_out_norm", layer.norm)}
        if part == "mixer" and not layer.mixer_normed:
            return NONE, NONE, {}
        norm = self.norm(f"{name}.{part}_norm", layer.norm)
        match layer.residual:
            case "post":
                return norm, NONE, {"after": norm}
            case "sandwich":
                return norm, norm, {"before": self.norm(f"{name}.{part}_out_norm", layer.norm)}
            case _:
                return norm, norm, {}

    def attention(
        self, name: str, number: int, spec: AttentionSpec, projections: list[str], causal: bool, distances: int, cross: bool = False
    ) -> None:
        """Projections, attention and the output matrix. The result is in y."""
        self.multiply(c.HIDDEN, c.PROJECTED, projections)
        places = [_lanes(self.rows_of(matrix)) for matrix in projections]
        self.widen(1, sum(places))
        self.widen(2, spec.heads * spec.head_dim)
        if spec.distances is not None:
            distances = _number(self.programs.distances, (f"{name}.distances", spec.distances))
        norms = [NONE, NONE]
        if spec.qk_norm is not None:
            widths = [spec.head_dim * (1 if spec.qk_norm_span == "head" else heads) for heads in (spec.heads, spec.kv_heads)]
            norms = [self.norm(f"{name}.{letter}_norm", spec.qk_norm, width) for letter, width in zip("qk", widths, strict=True)]
        sinks = self.constant_of(f"{name}.sinks") if spec.sinks else 0
        self.emit(
            c.ATTEND,
            layer=number,
            cross=int(cross),
            causal=int(causal),
            heads=spec.heads,
            window=spec.window or 0,
            rope=NONE if spec.rope is None else _number(self.programs.ropes, spec.rope),
            distances=distances,
            q_norm=norms[0],
            k_norm=norms[1],
            key_at=places[0],
            value_at=sum(places[:2]),
            norm_span=c.SPANS[spec.qk_norm_span],
            norm_after_rope=int(spec.qk_norm_after_rope),
            clip=spec.clip or 0.0,
            growth_beta=spec.query_growth.beta if spec.query_growth else 0.0,
            growth_span=spec.query_growth.span if spec.query_growth else 0.0,
            attention_scale=spec.scale,
            sinks=sinks,
            softcap=spec.softcap or 0.0,
        )
        self.multiply(c.MIXED, c.OUTPUT, [f"{name}.out"], layer=number, cross=int(cross), sinks=sinks)

    def feed_forward(self, name: str, part: FeedForward, before: int, early: int) -> None:
        """The norm `before` the part, and the part. The result is in y."""
        if isinstance(part, MlpSpec):
            self.code.append(self.settle(into=before, readers=_first(name, part), early=early))
            self.mlp(name, part)
            return
        gates = [f"{name}.router", *([f"{name}.shared_gate"] if part.shared_gate else [])]
        shared = [] if part.shared is None else _first(f"{name}.shared", part.shared)
        experts = [f"{name}.experts.{number}" for number in range(part.router.experts)]
        first = [matrix for expert in experts for matrix in _first(expert, part.expert)]
        self.code.append(self.settle(into=before, readers=[*gates, *shared, *first], early=early))
        if part.shared is not None:
            self.mlp(f"{name}.shared", part.shared)
        self.multiply(c.HIDDEN, c.ROUTED, gates)
        self.experts(name, part, experts, first)

    def mlp(self, name: str, mlp: MlpSpec) -> None:
        """The feed-forward matrices, from hidden to y."""
        self.widen(3, mlp.width)
        self.multiply(c.HIDDEN, c.INNER, _first(name, mlp), gated=int(mlp.gated), **self.activation(name, mlp))
        self.multiply(c.INNER, c.OUTPUT, [f"{name}.down"])

    def activation(self, name: str, mlp: MlpSpec) -> dict[str, int]:
        """The fields of an activation: its number, and the address of its constants."""
        kind: str = mlp.activation if mlp.clamp is None else "clamped"
        if kind == "gelu_tanh" and self.rounds_gelu:
            kind = "gelu_half"
        return {"activation": c.ACTIVATIONS[kind], "constant": self.constant_of(f"{name}.{kind}") if kind in CONSTANTS else 0}

    def experts(self, name: str, part: ExpertsSpec, experts: list[str], first: list[str]) -> None:
        """Each token's experts, from hidden and the router's logits. If there is a shared part, y already holds its result."""
        router = part.router
        numbers = [self.matrix(matrix) for expert in experts for matrix in (*_first(expert, part.expert), f"{expert}.down")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        gate_at = _lanes(router.experts)
        for place, width in ((4, gate_at + part.shared_gate), (5, router.experts), (6, router.chosen), (7, part.expert.width)):
            self.widen(place, width)
        self.emit(
            c.EXPERTS,
            matrices=[numbers[0]],
            add=int(part.shared is not None),
            offset=gate_at if part.shared_gate else 0,
            gated=int(part.expert.gated),
            formats=self.formats(first),
            inner_formats=self.formats([f"{expert}.down" for expert in experts]),
            experts=router.experts,
            chosen=router.chosen,
            scores=c.SCORES[router.scores],
            normalised=int(router.normalised),
            groups=router.groups,
            kept_groups=router.kept_groups,
            group_best=router.group_best,
            route_scale=router.scale,
            jitter=router.jitter,
            correction=self.constant_of(f"{name}.correction") if router.correction else 0,
            **self.activation(name, part.expert),
        )

    def head(self) -> None:
        """The instructions from x to the logits of the selected tokens."""
        spec = self.programs.spec
        head, stack = spec.head, spec.decoder or spec.encoder
        assert head is not None and stack is not None
        self.emit(c.SELECT)
        name = "decoder" if spec.decoder is not None else "encoder"
        final = NONE if stack.final_norm is None else self.norm(f"{name}.final_norm", stack.final_norm)
        out = "embedding" if head.tied else "head.out"
        scale = 1.0 if head.scale is None else head.scale
        if head.transform is None:
            self.code.append(self.join(into=final, readers=[out], scale=scale))
        else:
            dense = "head.transform.dense"
            self.code.append(self.join(into=final, readers=[dense]))
            self.multiply(c.HIDDEN, c.OUTPUT, [dense], activation=c.ACTIVATIONS[head.transform.activation])
            norm = self.norm("head.transform.norm", head.transform.norm)
            self.code.append(self.join(add=2, after=norm, readers=[out], scale=scale))
        matrix = "head.out" if head.bias or not head.tied else out  # with a bias, a tied matrix counts as another one than the embedding
        self.multiply(c.HIDDEN, c.LOGITS, [matrix], softcap=head.softcap or 0.0)

    def project(self, decoder: StackSpec) -> None:
        """The instructions from the encoder's states to each layer's keys and values for cross-attention."""
        self.emit(c.EMBED, matrices=[NONE, NONE])
        layers = [f"decoder.layers.{number}.cross" for number in range(len(decoder.layers))]
        self.code.append(self.join(readers=[f"{name}.{letter}" for name in layers for letter in "kv"]))
        for number, name in enumerate(layers):
            self.multiply(c.HIDDEN, c.PROJECTED, [f"{name}.k", f"{name}.v"])
            keys = _lanes(self.rows_of(f"{name}.k"))
            self.widen(1, 2 * keys)
            self.emit(c.STORE_KEYS, layer=number, value_at=keys)

    def settle(self, into: int = NONE, readers: Sequence[str] = (), early: int = 0) -> c.Instruction:
        """A JOIN that adds the pending y to the residual stream, if there is one."""
        pending, self.pending = self.pending, None
        if pending is None:
            return self.join(into=into, readers=readers)
        return self.join(into=into, readers=readers, early=early, add=1, **pending)

    def join(self, into: int = NONE, readers: Sequence[str] = (), scale: float = 1.0, **fields: int) -> c.Instruction:
        """A JOIN whose hidden vector the matrices `readers` read."""
        return _instruction(c.JOIN, into=into, scale=scale, formats=self.formats(readers), **fields)

    def multiply(self, source: int, target: int, names: list[str], **fields: float) -> None:
        """A MULTIPLY with these matrices."""
        numbers = [self.matrix(name) for name in names]
        self.emit(c.MULTIPLY, source=source, target=target, matrices=numbers, formats=self.formats(names), **fields)

    def emit(self, kind: int, **fields: object) -> None:
        self.code.append(_instruction(kind, **fields))

    def matrix(self, name: str) -> int:
        return _number(self.programs.matrices, name)

    def norm(self, name: str, spec: NormSpec, width: int | None = None) -> int:
        return _number(self.programs.norms, (name, spec, self.programs.spec.width if width is None else width))

    def widen(self, place: int, numbers: int) -> None:
        self.programs.widths[place] = max(self.programs.widths[place], numbers)

    def formats(self, names: Sequence[str]) -> int:
        """The formats of the matrices as bits, bit f for format f."""
        bits = 0
        for name in names:
            bits |= 1 << self.format_of(name)
        return bits


def _first(name: str, mlp: MlpSpec) -> list[str]:
    """The matrices of a feed-forward part that read its input."""
    return [f"{name}.gate", f"{name}.up"] if mlp.gated else [f"{name}.up"]


def _number(known: dict[Item, int], item: Item) -> int:
    """An item's number; a new item gets the next one."""
    return known.setdefault(item, len(known))


def _lanes(numbers: int) -> int:
    """The number of lanes, which are whole registers, that hold this many numbers."""
    return -(-numbers // c.LANES) * c.LANES


def _instruction(kind: int, **fields: object) -> c.Instruction:
    instruction = c.Instruction(kind=kind, scale=1.0)
    for name in ("before", "after", "into", "rope", "distances", "q_norm", "k_norm"):
        setattr(instruction, name, NONE)
    matrices = fields.pop("matrices", [])
    assert isinstance(matrices, list)
    instruction.matrices[:] = [*matrices, NONE, NONE, NONE][:3]
    for name, value in fields.items():
        setattr(instruction, name, value)
    return instruction
