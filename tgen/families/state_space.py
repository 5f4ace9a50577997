"""State spaces and windows as the folders of several families hold them: keys of config.json, and names of tensors."""

from __future__ import annotations

from tgen.errors import CheckpointError, UnsupportedError
from tgen.families.config import HINT, Config
from tgen.families.table import Names, Reshape, Source
from tgen.spec.records import ModelSpec
from tgen.spec.recurrent import StateSpaceSpec, WindowSpec

# Further keys that transformers and older programs write: how weights were initialised, and which kernel runs.
UNUSED = """
    chunk_size mamba_chunk_size time_step_scale time_step_min time_step_max time_step_init_scheme time_step_floor rescale_prenorm_residual
    use_mambapy use_falcon_mambapy use_associative_scan use_mamba_kernels fused_add_norm pad_vocab_size_multiple
""".split()

UNBOUNDED = float("inf")
LARGEST = 3e38


def read_unused(config: Config) -> None:
    """Read the keys that change nothing."""
    for key in UNUSED:
        config.raw(key)


def step_limits(config: Config) -> tuple[float, float]:
    """The least and the largest step of a state space."""
    limits = config.raw("time_step_limit")
    if limits is None:
        return 0.0, UNBOUNDED
    if isinstance(limits, list):  # transformers 5 writes what JSON lacks in this way
        limits = [UNBOUNDED if one == {"__float__": "Infinity"} else one for one in limits]
    if not isinstance(limits, list) or len(limits) != 2 or not all(isinstance(one, int | float) for one in limits):
        raise CheckpointError("config.json: time_step_limit is not a list of two numbers", HINT)
    # What float32 cannot hold bounds nothing.
    least, most = (UNBOUNDED if one > LARGEST else -UNBOUNDED if one < -LARGEST else float(one) for one in limits)
    return least, most


def checked(mixer: StateSpaceSpec) -> StateSpaceSpec:
    """The mixer, if its heads divide into groups. Raises CheckpointError."""
    if mixer.heads % mixer.groups or mixer.inner % mixer.norm_groups:
        raise CheckpointError(f"config.json: {mixer.heads} heads of a state space do not divide into {mixer.groups} groups", HINT)
    return mixer


def hybrid_state_space(config: Config, width: int, eps: float, inner: int | None = None) -> StateSpaceSpec:
    """The state space of a layer that may also have attention: its keys begin with `mamba_`. `inner` is the width of all heads together."""
    heads, groups = config.integer("mamba_n_heads", default=128), config.integer("mamba_n_groups", default=1)
    expanded = int(config.number("mamba_expand", default=2, maximum=1024) * width)
    inner = inner or expanded
    config.require("mamba_d_head", ["auto", inner // heads])
    if inner % heads or not inner:
        raise UnsupportedError(f"config.json: mamba_n_heads = {heads} is not implemented", f"implemented: divisors of {inner}")
    bias = config.flag("mamba_proj_bias", default=False)
    return checked(
        StateSpaceSpec(
            heads,
            inner // heads,
            config.integer("mamba_d_state", default=256),
            groups,
            WindowSpec(config.integer("mamba_d_conv", default=4, maximum=1024), config.flag("mamba_conv_bias", default=True)),
            bias=bias,
            out_bias=bias,
            norm_eps=eps,
            norm_groups=groups,
            steps=step_limits(config),
        )
    )


def window_names(spec: ModelSpec, theirs: str, ours: str = "mixer") -> Names:
    """The window of each mixer: transformers stores it as a convolution over one channel each, [channels, 1, size]."""
    found = (getattr(mixer, "window", None) for stack in spec.stacks.values() for layer in stack.layers for mixer in layer.mixers)
    size = next((window.size for window in found if isinstance(window, WindowSpec)), 1)
    shape = Reshape((-1, size), back=(-1, 1, size))
    return {f"{ours}.window.weight": Source(f"{theirs}.weight", (shape,)), f"{ours}.window.bias": f"{theirs}.bias"}


def state_space_names(spec: ModelSpec, theirs: str, ours: str = "mixer") -> Names:
    """The parameters of a state space."""
    return {
        **window_names(spec, f"{theirs}.conv1d", ours),
        f"{ours}.projection": f"{theirs}.in_proj",
        f"{ours}.step_bias": f"{theirs}.dt_bias",
        f"{ours}.decay": f"{theirs}.A_log",
        f"{ours}.skip": f"{theirs}.D",
        f"{ours}.norm": f"{theirs}.norm.weight",
        f"{ours}.result": f"{theirs}.out_proj",
    }
