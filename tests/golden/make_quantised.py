"""Writes `quantised/model.safetensors`: small matrices as the methods' own libraries store them, and what the libraries make of them.

Needs compressed-tensors, bitsandbytes and mlx, which nothing else does: `python -m tests.golden.make_quantised` in an environment of its
own. A tensor's name begins with its case; `CASE.expected` is the dequantised matrix, and the metadata hold each case's config.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FILE = Path(__file__).parent / "quantised" / "model.safetensors"
Case = tuple[dict[str, Any], dict[str, torch.Tensor], torch.Tensor]  # config, tensors of the module "m", expected


def matrix(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns)).to(dtype)


def compressed(format_: str, **weights: Any) -> Case:
    """A matrix through compressed-tensors' own compressor."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(dynamic=False, **weights)
    weight = matrix(12, 96, torch.bfloat16)
    if args.strategy == "block":
        parts = weight.reshape(4, 3, 3, 32).transpose(1, 2).reshape(4, 3, -1)
    else:
        parts = weight.reshape(12, -1, args.group_size) if args.strategy == "group" else weight[:, None]
        parts = weight.reshape(1, 1, -1) if args.strategy == "tensor" else parts
    scale, zeros = calculate_qparams(parts.amin(-1), parts.amax(-1), args)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state = {"weight": weight, "weight_scale": scale.bfloat16(), "weight_zero_point": zeros}
    compressor = BaseCompressor.get_value_from_registry(format_)
    stored = compressor.compress(state, scheme)
    expected = compressor.decompress(stored, scheme)["weight"]
    group = {"targets": ["Linear"], "weights": json.loads(args.model_dump_json()), "input_activations": None, "output_activations": None}
    config = {"quant_method": "compressed-tensors", "format": format_, "config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    config["quantization_status"] = "compressed"
    return config, {f"m.{name}": tensor.contiguous() for name, tensor in stored.items()}, expected


def four_bits(kind: str, nested: bool) -> Case:
    """A matrix through bitsandbytes."""
    import bitsandbytes as bnb

    weight = matrix(5, 192, torch.bfloat16)
    module = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=kind, compress_statistics=nested).to("cpu")
    if module.quant_state is None:
        module = module._quantize("cpu")
    state = {f"m.weight.{name}": tensor for name, tensor in module.quant_state.as_dict(packed=True).items()}
    state = {name: tensor.clone() for name, tensor in state.items()}
    expected = bnb.functional.dequantize_4bit(module.data, module.quant_state)
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}, {"m.weight": module.data, **state}, expected


def eight_bits() -> Case:
    import bitsandbytes as bnb

    weight = matrix(6, 160, torch.float16)
    codes, scale, _ = bnb.functional.int8_vectorwise_quant(weight)
    tensors = {"m.weight": codes, "m.SCB": scale, "m.weight_format": torch.tensor(0, dtype=torch.uint8)}
    return {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors, bnb.functional.int8_vectorwise_dequant(codes, scale).float()


def mlx(bits: int, group: int) -> Case:
    """A matrix through MLX."""
    import mlx.core as mx
    import numpy as np

    words, scales, biases = mx.quantize(mx.array(matrix(3, 256).numpy()), group_size=group, bits=bits)
    expected = mx.dequantize(words, scales, biases, group_size=group, bits=bits)
    stored = {"weight": words, "scales": scales, "biases": biases}
    tensors = {f"m.{name}": torch.from_numpy(np.array(array)) for name, array in stored.items()}
    return {"group_size": group, "bits": bits}, tensors, torch.from_numpy(np.array(expected))


def cases() -> dict[str, Case]:
    integers: dict[str, Any] = {"type": "int", "strategy": "group", "group_size": 32}
    rows: dict[str, Any] = {"type": "int", "num_bits": 8, "strategy": "channel"}
    floats: dict[str, Any] = {"type": "float", "num_bits": 8, "symmetric": True}
    return {
        "pack-4-asymmetric": compressed("pack-quantized", num_bits=4, symmetric=False, **integers),
        "pack-3-asymmetric": compressed("pack-quantized", num_bits=3, symmetric=False, **integers),
        "pack-5": compressed("pack-quantized", num_bits=5, symmetric=True, **integers),
        "pack-8-rows": compressed("pack-quantized", symmetric=False, **rows),
        "int-8-rows": compressed("int-quantized", symmetric=True, **rows),
        "int-8-asymmetric": compressed("int-quantized", symmetric=False, **rows),
        "float-8-rows": compressed("float-quantized", strategy="channel", **floats),
        "float-8-tensor": compressed("float-quantized", strategy="tensor", **floats),
        "float-8-blocks": compressed("float-quantized", strategy="block", block_structure=[3, 32], **floats),
        "nf4": four_bits("nf4", False),
        "nf4-nested": four_bits("nf4", True),
        "fp4": four_bits("fp4", False),
        "bnb-8": eight_bits(),
        **{f"mlx-{bits}": mlx(bits, group) for bits, group in {2: 64, 3: 128, 4: 64, 5: 32, 6: 64, 8: 32}.items()},
    }


def main() -> None:
    tensors, configs = dict[str, torch.Tensor](), {}
    for name, (config, stored, expected) in cases().items():
        configs[name] = json.dumps(config)
        tensors |= {f"{name}.{key}": tensor.contiguous() for key, tensor in stored.items()} | {f"{name}.expected": expected.contiguous()}
    FILE.parent.mkdir(exist_ok=True)
    save_file(tensors, FILE, configs)


if __name__ == "__main__":
    main()
