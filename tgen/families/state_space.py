"""State spaces and windows as the folders of several families hold them: keys of config.json, and names of tensors."""

from __future__ import annotations

from tgen.errors import CheckpointError
from tgen.families.config import HINT, Config
from tgen.families.table import Names, Reshape, Source
from tgen.spec.records import ModelSpec
from tgen.spec.recurrent import StateSpaceSpec, WindowSpec

# What transformers and older programs write beside: how weights were initialised, and which kernel runs.
UNUSED = """
    chunk_size mamba_chunk_size time_step_scale time_step_min time_step_max time_step_init_scheme time_step_floor rescale_prenorm_residual
    use_mambapy use_falcon_mambapy use_associative_scan use_mamba_kernels fused_add_norm pad_vocab_size_multiple
""".split()

ENDLESS = float("inf")


def read_unused(config: Config) -> None:
    """Read the keys that change nothing."""
    for key in UNUSED:
        config.raw(key)


def step_limits(config: Config) -> tuple[float, float]:
    """The least and the largest step of a state space."""
    limits = config.raw("time_step_limit")
    if limits is None:
        return 0.0, ENDLESS
    if isinstance(limits, list):  # transformers 5 writes what JSON lacks in this way
        limits = [ENDLESS if one == {"__float__": "Infinity"} else one for one in limits]
    if not isinstance(limits, list) or len(limits) != 2 or not all(isinstance(one, int | float) for one in limits):
        raise CheckpointError("config.json: time_step_limit is not a list of two numbers", HINT)
    least, most = (min(max(one, -ENDLESS), ENDLESS) for one in limits)  # a whole number may be too large for a float
    return float(least), float(most)


def checked(mixer: StateSpaceSpec) -> StateSpaceSpec:
    """The mixer, if its heads divide into groups. Raises CheckpointError."""
    if mixer.heads % mixer.groups or mixer.inner % mixer.norm_groups:
        raise CheckpointError(f"config.json: {mixer.heads} heads of a state space do not divide into {mixer.groups} groups", HINT)
    return mixer


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
