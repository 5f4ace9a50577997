"""`tgen quantize`: writes a model with weights of 8 or 4 bits into a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tgen.cli import options as p
from tgen.cli.completion import model_names
from tgen.cli.opening import open_checkpoint
from tgen.errors import UsageError
from tgen.ui import messages
from tgen.ui.counting import counting


def quantize(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", autocompletion=model_names, help="A folder or a name, as for --model.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write, new or empty.", show_default=False)],
    bits: Annotated[int, p.option("--bits", panel=p.OUTPUT, metavar="4|8", default="8", help="Bits of a weight.")] = 8,
    threads: Annotated[
        int | None,
        p.option("--threads", "-t", panel=p.RUNNING, metavar="INT", help="CPU threads. Without --threads, one for each core."),
    ] = None,
    quiet: p.Quiet = False,
) -> int:
    """Write a model's folder anew, with the matrices of its layers as integers of 8 or 4 bits, each 32 weights of a row with one scale.

    The folder is in the compressed-tensors format (pack-quantized), which transformers and vLLM read, too. Embeddings, the head, norms and
    biases stay as they are; tokenizer and other files are copied. To make a model smaller on this machine only, run it with --quantize.
    """
    messages.configure("auto", quiet)
    if bits not in (4, 8):
        raise UsageError(f"--bits must be 4 or 8, not {bits}")
    p.check_least("--threads", 1 if threads is None else threads, 1)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already", "choose another folder")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"no folder {out.absolute().parent}", "make it, or choose another folder")
    checkpoint = open_checkpoint(name)

    from tgen.checkpoint.safetensors import weight_bytes
    from tgen.executors.native.open import open_packer
    from tgen.tasks.quantising import quantisable, write_quantised

    tensors, packer = quantisable(checkpoint), open_packer(threads)
    with counting("quantising", len(checkpoint.stored) + 2 * len(tensors)) as bar:
        written = write_quantised(checkpoint, tensors, out, bits, packer, bar.add)
    messages.dim(f"{out}: {len(tensors)} matrices of {bits} bits; weights {_size(weight_bytes(checkpoint.stored))} -> {_size(written)}")
    return 0


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
