"""Folders as the hub has them, but with small random weights: a real config.json whose sizes alone are changed, and all the other files."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.conftest import spec_of, tokenizer_folder
from tgen.families.registry import FAMILIES, find_family
from tgen.families.table import Interleaved, Member, Part, Reshape, Rows, Take, Transpose
from tgen.spec.shapes import parameters

# What each size becomes. A number of heads that is 1, or that equals another one, stays so.
WIDTHS = "hidden_size d_model n_embd n_embed dim"
INNER = "intermediate_size d_ff ffn_dim hidden_dim encoder_ffn_dim decoder_ffn_dim shared_intermediate_size block_ff_dim"
LAYERS = "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers depth"
HEADS = "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"
SIZES = {
    **dict.fromkeys(WIDTHS.split(), 32),
    **dict.fromkeys(INNER.split(), 48),
    **dict.fromkeys(LAYERS.split(), 2),
    **dict.fromkeys(HEADS.split(), 4),
    "word_embed_proj_dim": 32,
    "head_dim": 16,
    "d_kv": 16,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "experts_per_token": 2,
    "moe_k": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
PATTERNS = ("layer_types", "no_rope_layers", "layers_block_type")
CHARACTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


@dataclass(frozen=True, slots=True)
class Official:
    """A repository: its config.json, what the weights hold beside the model's own tensors, and whether they hold its head.

    `count` is how many parameters there are, `active` how many take part in a token; None is not compared. `generation` is its
    generation_config.json, `tokens` its special tokens, `files` its other files, of which the tests know the names alone, and `beside`
    those whose JSON matters. Its tokenizer is one of bytes, one of words, or that of a golden folder. `small` are sizes that do not
    follow from the rules. `renamed` pairs the beginning that transformers now writes before names of tensors with the folder's own. The
    `commands` run without a word; a `refusal` is what one line says instead.
    """

    values: dict[str, Any]
    others: tuple[str, ...] = ()
    headed: bool = True
    count: float | None = None
    active: float | None = None
    generation: dict[str, Any] | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "bytes"
    small: dict[str, Any] = field(default_factory=dict)
    renamed: tuple[str, str] = ("", "")
    commands: tuple[str, ...] = ("generate",)
    refusal: str | None = None


def write_folder(official: Official, place: Path) -> Path:
    """Write such a folder, small, with random weights."""
    values = shrunk(official.values, official.small)
    place.mkdir(parents=True)
    for name in official.files:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "not what tgen reads\n")
    write_tokenizer(official, place)
    for name, content in {"config.json": values or None, "generation_config.json": official.generation, **official.beside}.items():
        if content is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(json.dumps(content, indent=2), "utf-8")
    if values.get("model_type") in FAMILIES:
        save_file(random_tensors(official, values), place / "model.safetensors", metadata={"format": "pt"})
    return place


def shrunk(values: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """A config.json with small sizes: layers and lists for layers are cut, lists for rotations get the length that they have to have."""
    if isinstance(values.get("text_config"), dict):
        return values | {"text_config": shrunk(values["text_config"], small.get("text_config", {}))}
    found: dict[str, Any] = {
        key: SIZES[key] if key in SIZES and value and isinstance(value, int) else value for key, value in values.items()
    }
    for key in ("num_key_value_heads", "num_kv_heads", "n_shared_experts"):
        found[key] = min(values[key], found[key]) if key in found else None
    if values.get("num_key_value_heads") == values.get("num_attention_heads"):
        found["num_key_value_heads"] = found.get("num_attention_heads")
    layers = next((found[key] for key in LAYERS.split() if key in found), 2)
    for key in PATTERNS:
        if isinstance(values.get(key), list):
            found[key] = [*dict.fromkeys(values[key]), values[key][0]][:layers]
    found = {key: value for key, value in {**found, **small}.items() if value is not None or key in values}
    if isinstance(rope := values.get("rope_scaling"), dict):
        heads = found["num_attention_heads"]
        half = int(found.get("head_dim") or found["hidden_size"] // heads) * found.get("partial_rotary_factor", 1) // 2
        found["rope_scaling"] = {key: value[: int(half)] if key.endswith("_factor") and isinstance(value, list) else value
                                 for key, value in rope.items()}  # fmt: skip
    return found


def stored_shapes(official: Official, values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that such a folder with this config.json holds; copies have that of the embeddings."""
    spec = spec_of(values)
    table, shapes = find_family(values["model_type"]).tensors(spec), dict[str, tuple[int, ...]]()
    before, after = official.renamed
    for parameter, shape in parameters(spec).items():
        source = table.sources[parameter]
        if official.headed or not parameter.startswith("head."):
            name = after + source.name.removeprefix(before) if source.name.startswith(before) else source.name
            found, known = stored_shape(shape, source.take), shapes.get(name)
            shapes[name] = found if known is None else tuple(map(max, found, known))
    embedding = next(iter(shapes.values()))
    return {**shapes, **{name: embedding for name in official.others if name not in shapes}}


def random_tensors(official: Official, values: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Small random numbers for every tensor that such a folder holds: norms near 1, copies of the embeddings, MXFP4 where it has blocks."""
    random, tensors = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    drawn = 0.05 * torch.randn(2**16 + 1, generator=random)  # embeddings of 150,000 rows repeat them: drawing takes long
    dtype = {"float16": torch.float16, "float32": torch.float32}.get(values.get("torch_dtype", "float32"), torch.bfloat16)
    for name, shape in stored_shapes(official, values).items():
        if name.endswith("_blocks"):
            rows = (*shape[:-1], shape[-1] // 32)
            tensors[name] = torch.randint(0, 256, (*rows, 16), generator=random, dtype=torch.uint8)
            tensors[f"{name.removesuffix('_blocks')}_scales"] = torch.randint(118, 124, rows, generator=random, dtype=torch.uint8)
        elif name in official.others and tensors:
            tensors[name] = next(iter(tensors.values())).clone()
        else:
            middle = float("norm" in name.lower() and name.endswith("weight"))
            tensors[name] = (
                (middle + drawn.roll(len(tensors))).to(dtype).repeat(-(-math.prod(shape) // len(drawn)))[: math.prod(shape)].view(shape)
            )
    settings = values.get("quantization_config", {})
    return narrowed(tensors, settings) if settings.get("quant_method") == "fp8" else tensors


def narrowed(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The matrices of the layers as FP8, with a scale for each block of 128 by 128, or with one for a matrix and one for its inputs."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if "_proj" in name and name.endswith(".weight") and tensor.ndim == 2:
            sizes = [-(-size // 128) for size in tensor.shape] if settings["weight_block_size"] else []
            found |= {name: tensor.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.full(sizes, 0.5)}
            if settings["activation_scheme"] == "static":
                found[f"{name.removesuffix('weight')}activation_scale"] = torch.tensor(0.5)
    return found


def stored_shape(shape: tuple[int, ...], take: Take) -> tuple[int, ...]:
    """The shape of a checkpoint's tensor that these steps make a parameter of this shape from, as far as the parameter tells."""
    for step in reversed(take):
        match step:
            case Transpose():
                shape = shape[::-1]
            case Reshape(_, back):
                known = math.prod(size for size in back if size != -1)
                shape = tuple(math.prod(shape) // known if size == -1 else size for size in back)
            case Rows(_, stop):
                shape = (stop, *shape[1:])
            case Part(_, of):
                shape = (of * shape[0], *shape[1:])
            case Member(_, of):
                shape = (of, *shape)
            case Interleaved(_, of, _, count):
                shape = (shape[0] // count * of, *shape[1:])
    return shape


def write_tokenizer(official: Official, place: Path) -> None:
    """The tokenizer's files, with the special tokens under the ids that they really have."""
    if official.tokenizer not in ("bytes", "words"):
        shutil.copytree(tokenizer_folder(official.tokenizer), place, dirs_exist_ok=True)
        return
    free = (number for number in range(10**6) if number not in official.tokens.values())
    words = CHARACTERS if official.tokenizer == "bytes" else ["once", "upon", "a", "time", "##s", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {**official.tokens, **{word: next(free) for word in words}}
    if official.tokenizer == "bytes":
        library = Tokenizer(models.BPE(vocabulary, []))
        library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        library = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
    library.add_special_tokens(list(official.tokens))
    library.save(str(place / "tokenizer.json"))
    added = {
        str(number): {"content": token, "lstrip": False, "normalized": False, "special": True} for token, number in official.tokens.items()
    }
    settings = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False, "model_max_length": 1000000000000000019884624838656}
    (place / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
