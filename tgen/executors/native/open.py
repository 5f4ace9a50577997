"""Opens a checkpoint on the native executor: chooses the kernel, the threads and the number format, and packs the weights."""

from __future__ import annotations

from tgen.checkpoint.container import Checkpoint
from tgen.checkpoint.mapped import Array, check_repeats
from tgen.errors import UnsupportedError
from tgen.executors.formats import NUMBER_FORMATS
from tgen.executors.native import interface as c
from tgen.executors.native.forecast import cache_format, widths
from tgen.executors.native.library import kernels, load, loaded, new_handle, usable_cores
from tgen.executors.native.model import NativeModel
from tgen.executors.native.packed_cache import PackedCache, cache_folder
from tgen.executors.native.packing import Packer, packed_places
from tgen.executors.native.session import NativeExecutor
from tgen.executors.native.weights import Copies, StoredMatrix, Weights, address
from tgen.options import Quantize, RunOptions
from tgen.spec.records import AttentionSpec, ExpertsSpec, MlpSpec, ModelSpec
from tgen.ui import messages
from tgen.ui.counting import counting

MOST_HEAD_NUMBERS = 1024  # the library keeps a head in a buffer of this size


def supports(spec: ModelSpec) -> str | None:
    """Why the library cannot run a model; None if it can."""
    layers = [layer for stack in spec.stacks.values() for layer in stack.layers]
    if any(stack.recurrent for stack in spec.stacks.values()):
        return "its layers carry a state from token to token"
    if any(not isinstance(layer.mixer, AttentionSpec) or layer.feed_forward is None for layer in layers):
        return "its layers lack attention or a feed-forward part"
    if any(layer.streams is not None for layer in layers):
        return "its layers have several residual streams"
    if any(layer.vector is not None or layer.experts is not None or layer.scaled or layer.laurel is not None for layer in layers):
        return "its layers have more than a mixer and a feed-forward part"
    parts = [layer.feed_forward for layer in layers]
    mixtures = [part for part in parts if isinstance(part, ExpertsSpec)]
    if any(
        part.inner is not None or part.router.norm is not None or part.router.expert_scales or part.router.logit_scale != 1
        for part in mixtures
    ):
        return "its experts read vectors of another width than its layers, or their router has a norm or factors"
    if any(isinstance(part, MlpSpec) and (part.gate_scale, part.out_scale, part.cutoff) != (1.0, 1.0, None) for part in parts):
        return "its feed-forward parts have constant factors or bounds"
    mixers = [layer.attention for layer in layers] + [layer.cross for layer in layers if layer.cross is not None]
    if any(stack.positions_last for stack in spec.stacks.values()):
        return "its positions are added after a norm"
    if spec.row != spec.width:
        return "its embeddings have another width than its layers"
    if any(mixer.latent is not None for mixer in mixers):
        return "its attention keeps one short vector for each token"
    if any(mixer.head_dim > MOST_HEAD_NUMBERS for mixer in mixers):
        return f"its heads are wider than {MOST_HEAD_NUMBERS} numbers"
    if any(mixer.shares is not None or mixer.values_are_keys or mixer.v_norm is not None for mixer in mixers):
        return "its attention shares keys, or makes values of them, or has a norm of values"
    if any(mixer.gated for mixer in mixers):
        return "its attention has a gate"
    if any(mixer.aggregates for mixer in mixers):
        return "its attention sees sums of blocks"
    if any(mixer.disentangled for mixer in mixers):
        return "its attention compares queries and keys with vectors of distances"
    spread = [mixer for mixer in mixers if mixer.qk_norm is not None and mixer.qk_norm_span == "width"]
    if any(mixer.clip is not None or mixer.qk_norm_after_rope for mixer in spread):
        return "its norm of all heads follows a clip or a rotation"
    return None


def open_executor(checkpoint: Checkpoint, options: RunOptions, kernel: str | None = None) -> NativeExecutor:
    """The loaded model behind the engine's protocol, on the fastest kernel that runs here, or on a named one.

    Raises CheckpointError for NaN or infinity in the weights, MemoryLimitError.
    """
    library = loaded()
    known = kernels(library)
    name = next(iter(known)) if kernel is None else kernel
    handle = new_handle(library, options.threads)

    def finite(number_format: int, array: Array) -> bool:
        return bool(library.tgen_finite(handle, number_format, address(array), array.size))

    wanted = NUMBER_FORMATS[options.dtype]
    weights = Weights(checkpoint.matches, wanted, finite, Copies(library))
    check_repeats(checkpoint.matches, weights.files)
    packer = Packer(library, known[name], int(library.tgen_model_threads(handle)))
    packed = _packed(checkpoint, weights, options.quantize, packer, handle)
    for module, matrix in packed.items():
        weights.put(module, matrix)
    number_format = wanted or checkpoint.matches.number_format
    formats = {matrix.format for matrix in packed.values()}
    cache = cache_format(options, number_format, formats, checkpoint.paired)
    weights.as_llama_cpp = cache in c.HALVES
    model = NativeModel(library, checkpoint.spec, weights, handle, known[name], cache)
    held = widths(formats, number_format)
    return NativeExecutor(model, f"{name} kernel, {held}, {model.threads} thread{'s' * (model.threads != 1)}")


def _packed(checkpoint: Checkpoint, weights: Weights, quantize: Quantize, packer: Packer, handle: int) -> dict[str, StoredMatrix]:
    """The packed matrices, from the cache folder. The first time they are packed now, and kept there for later runs."""
    places = packed_places(checkpoint.spec, checkpoint.matches, quantize)
    if not places:
        return {}

    def checksum(data: Array) -> int:
        return int(packer.library.tgen_checksum(handle, address(data), data.nbytes))

    folder = cache_folder()
    cache = None if folder is None else PackedCache(folder, checkpoint, quantize, checksum, packer.threads)
    block = None if cache is None else cache.read()
    if block is not None:
        return block.matrices()
    with counting("packing the weights", len(places)) as bar:
        block = packer.pack_all(weights, places, bar.add)
    problem = None if cache is None else cache.write(block)
    if problem is not None:
        messages.note(f"the packed weights are not kept for the next run: {problem}")
    return block.matrices()


def open_packer(threads: int | None) -> Packer:
    """A packer that needs no model. Raises UnsupportedError if there is no library that runs here."""
    found = load()
    if found.library is None:
        raise UnsupportedError(f"quantising needs the native executor: {found.problem}", "build it, then try again")
    return Packer(found.library, next(iter(kernels(found.library).values())), threads or usable_cores())
