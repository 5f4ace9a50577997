"""Mixtures of experts as the folders of several families hold them: keys of config.json, and names of tensors."""

from __future__ import annotations

from dataclasses import replace

from tgen.errors import CheckpointError
from tgen.families.config import HINT, Config
from tgen.families.table import Member, Names, Part, Source
from tgen.spec.records import ExpertsSpec, MlpSpec, ModelSpec, RouterSpec

PARTS = ("gate_proj", "up_proj", "down_proj")
MAX_EXPERTS = 4096


def counts(config: Config, many: str, *few: str) -> tuple[int, int]:
    """How many experts a layer has, and how many of them each token goes through, by these keys or by those of most families.

    transformers 5 writes the number of experts under another name for some families.
    """
    experts = config.integer(many, "num_local_experts", "num_experts", maximum=MAX_EXPERTS)
    chosen = config.integer(*few, "num_experts_per_tok")
    if chosen > experts:
        raise CheckpointError(f"config.json: {chosen} experts for each token, but a layer has {experts}", HINT)
    return experts, chosen


def grouped_router(config: Config, router: RouterSpec, *, best: int) -> RouterSpec:
    """The router with its groups of experts, each group judged by its `best` experts together."""
    groups = config.integer("n_group", default=1)
    kept = config.integer("topk_group", default=1)
    size = router.experts // groups
    if router.experts % groups or kept > groups or router.chosen > kept * size or (groups > 1 and best > size):
        message = f"config.json: {kept} of {groups} groups of {router.experts} experts cannot give {router.chosen}"
        raise CheckpointError(message, HINT)
    if groups == 1:
        return router
    return replace(router, groups=groups, kept_groups=kept, group_best=best)


def dense_first(config: Config, count: int, *, default: int) -> list[bool]:
    """For each layer, whether it is a mixture: the first ones are not."""
    config.require("moe_layer_freq", [1])
    first = config.integer("first_k_dense_replace", default=default, minimum=0)
    return [layer >= first for layer in range(count)]


def first_experts(spec: ModelSpec) -> ExpertsSpec | None:
    """The mixture of the first layer that is one; all others are like it."""
    layers = (layer.feed_forward for stack in spec.stacks.values() for layer in stack.layers)
    return next((part for part in layers if isinstance(part, ExpertsSpec)), None)


def expert_names(
    spec: ModelSpec,
    block: str = "mlp",
    parts: tuple[str, str, str] = PARTS,
    stacked: str = "mlp.experts.gate_up_proj mlp.experts.down_proj",
) -> Names:
    """Where the matrices of all experts are: one by one (`mlp.experts.3.up_proj.weight`), in two stacks, the first fused, or in three.

    transformers writes the first form, and the second if it is asked not to undo its conversions. MLX writes the third, under the same
    names for all families.
    """
    found, names = first_experts(spec), Names()
    if found is None:
        return names
    count, (fused, down) = found.router.experts, stacked.split()
    for number in range(count):
        member = Member(number, count)
        ways = ("gate", fused, (member, Part(0, 2))), ("up", fused, (member, Part(1, 2))), ("down", down, (member,))
        for part, (ours, stack, take) in zip(parts, ways, strict=True):
            last = Source(f"{block}.switch_mlp.{ours}_proj.weight", (member,))
            one = Source(f"{block}.experts.{number}.{part}.weight", other=Source(stack, take, last))
            names[f"feed_forward.experts.{number}.{ours}.weight"] = one
    return names


def shared_names(block: str) -> Names:
    """The names of the part that all tokens go through."""
    return {f"feed_forward.shared.{part.removesuffix('_proj')}": f"{block}.{part}" for part in PARTS}


def gated(config: Config, width: int) -> MlpSpec:
    """A part with a gate and this inner width."""
    return MlpSpec(width, config.activation("hidden_act", default="silu"), gated=True, bias=False)
