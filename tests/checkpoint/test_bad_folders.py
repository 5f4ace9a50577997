"""tgen refuses a folder that it cannot run, and its error names the fault and says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.checkpoint.bad_bins  # noqa: F401  # adds to CASES
from tests.checkpoint.damage import (
    CASES,
    LFS_POINTER,
    WEIGHTS,
    CopyGolden,
    assert_clear,
    bad,
    config,
    cut,
    edit,
    edit_bin,
    edit_header,
    edit_tensors,
    write_header,
)
from tests.conftest import GOLDEN
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError, UnsupportedError


@bad("gpt2", "no folder .*gpt2", "tgen models")
def missing_folder(folder: Path) -> None:
    shutil.rmtree(folder)


@bad("gpt2", r"no config\.json in ", "a model folder holds config.json")
def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@bad("gpt2", r"config\.json is not JSON: Unterminated", "download the file again")
def config_not_json(folder: Path) -> None:
    cut(folder / "config.json", 100)


@bad("gpt2", r"config\.json is not JSON: ", "download the file again")
def config_not_text(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00\x01" * 20)


@bad("gpt2", r"config\.json is not JSON: ", "download the file again")
def config_nested_without_end(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"[" * 10**6)


@bad("gpt2", r"config\.json holds list, not a JSON object", "download the file again")
def config_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


@bad("gpt2", r"config\.json is a Git-LFS pointer", "git lfs pull")
def config_lfs_pointer(folder: Path) -> None:
    (folder / "config.json").write_text(LFS_POINTER)


@bad("gpt2", r"generation_config\.json is not JSON", "download the file again")
def generation_config_not_json(folder: Path) -> None:
    cut(folder / "generation_config.json", 10)


UNSUPPORTED, EDITED = UnsupportedError, "config.json is damaged or was edited"
config("llama3", "model_type = 'lama' is not implemented", "nearest implemented: llama, which knows all", UNSUPPORTED, model_type="lama")
config("llama3", "model_type = 'qwen9' is not implemented", "nearest implemented: llama, which knows all", UNSUPPORTED, model_type="qwen9")
config("llama3", "model_type is missing", "it should be a string", model_type=None)
config("mistral", "rope_type = 'foo' is not implemented", "default, linear, dynamic, llama3", UNSUPPORTED, rope_scaling={"type": "foo"})
config("llama3", "partial_rotary_factor = 0.5 is not implemented", "1.0", UNSUPPORTED, partial_rotary_factor=0.5)
config("phi3", "long_factor is missing", "a list of 2 numbers above 0", rope_scaling={"type": "longrope", "factor": 2.0})
config("stablelm", "qk_layernorm = True is not implemented", "implemented: False", UNSUPPORTED, qk_layernorm=True)
config("opt", "layer_norm_elementwise_affine = False is not", "True", UNSUPPORTED, layer_norm_elementwise_affine=False)
config("gemma2", "use_bidirectional_attention = True is not", "False", UNSUPPORTED, use_bidirectional_attention=True)
config("t5", "feed_forward_proj = 'gated-foo' is not", "relu, .*gated- before it", UNSUPPORTED, feed_forward_proj="gated-foo")
config("t5", "relative_attention_max_distance = 4 is not a whole number from 5", "damaged", relative_attention_max_distance=4)
config("bart", "normalize_before = True is not implemented", "False", UNSUPPORTED, normalize_before=True)
config("bart", "normalize_embedding = False is not implemented", "True", UNSUPPORTED, normalize_embedding=False)
config("marian", "normalize_embedding = True is not implemented", "False", UNSUPPORTED, normalize_embedding=True)
config("marian", "add_final_layer_norm = True is not implemented", "False", UNSUPPORTED, add_final_layer_norm=True)
config("marian", "share_encoder_\\w+ = False is not implemented", "True", UNSUPPORTED, share_encoder_decoder_embeddings=False)
config("marian", "decoder_vocab_size = 99 is not implemented", "288", UNSUPPORTED, decoder_vocab_size=99)
config("bert", "position_embedding_type = 'relative_key' is not", "absolute", UNSUPPORTED, position_embedding_type="relative_key")
config("bert", "is_decoder = True is not implemented", "False", UNSUPPORTED, is_decoder=True)
config("roberta", "pad_token_id = 67 is not a whole number from 0 to 66", "damaged", pad_token_id=67)
config("gpt_neox", "a share of 0.4 of heads of 8 numbers cannot be rotated", "damaged", rotary_pct=0.4)
config("gpt_neox", "a share of 1.5 of heads of 8 numbers cannot be rotated", "damaged", rotary_pct=1.5)
config("llama3", "hidden_act = 'quick_gelu' is not implemented", "gelu, .*silu", UNSUPPORTED, hidden_act="quick_gelu")
config("falcon", "alibi = True is not", "False", UNSUPPORTED, alibi=True)
config("bloom", "apply_residual_\\w+ = True is not", "False", UNSUPPORTED, apply_residual_connection_post_layernorm=True)
config("mistral", "quant_method = 'hqq' is not implemented", "compressed-tensors", UNSUPPORTED, quantization_config={"quant_method": "hqq"})
config(
    "qwen2_window",
    r"layer_types = \['full_attention'\] is not",
    "sliding_attention for each of 3",
    UNSUPPORTED,
    layer_types=["full_attention"],
)
config("qwen2_window", r"layer_types = \['full_attention', 'sliding_.* is not", "full_attention'", UNSUPPORTED, use_sliding_window=False)
config("gpt2", "a width of 24 does not divide into 5 heads", EDITED, n_head=5)
config("mistral", "4 heads cannot share 3 key-value heads", EDITED, num_key_value_heads=3)
config("mistral", "heads of 3 numbers cannot be rotated", EDITED, head_dim=3)
config("mistral", "num_hidden_layers = 1000000000 is not a whole number", EDITED, num_hidden_layers=10**9)
config("mistral", "weights lack the tensor model.layers.2.input_layernorm", "different models", num_hidden_layers=3)
config("mistral", "no place for: model.layers.1.", "different models", num_hidden_layers=1)
config("mistral", r"embed_tokens\.weight has the shape \[288, 16\]; .* \[300, 16\]", "different models", vocab_size=300)
config("gpt2", r"c_fc\.weight has the shape \[24, 96\], which gives \[96, 24\]; .* \[99, 24\]", "different models", n_inner=99)
config("bloom", r"word_embeddings\.weight has the shape \[288, 16\]", "different models", hidden_size=32)


@bad("bart", r"encoder\.embed_tokens\.weight should be a copy of another tensor", "one matrix of embeddings", UnsupportedError)
def repeat_of_another_shape(folder: Path) -> None:
    edit_bin(folder, lambda tensors: tensors.update({"model.encoder.embed_tokens.weight": tensors["model.shared.weight"][:99]}))


@bad("bert", "the model with the head classifier sorts or scores whole texts", "no command for it", UnsupportedError)
def head_of_another_task(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"classifier.weight": np.zeros((2, 16), np.float32)}))


@bad("bert", r"lack the tensor cls\.predictions\.transform\.LayerNorm\.bias", "different models")
def head_in_part(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("cls.predictions.transform.LayerNorm.beta"))


@bad("mistral", "no weights in ", r"to run the GGUF file, name it: -m .*model\.gguf")
def weights_missing(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model.gguf")


@bad("llama3", r"a shard is missing: model-00002-of-00002\.safetensors", "download the missing file")
def shard_missing(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


@bad("llama3", r"is in both model-00001\S+ and model-00002", "download the file again")
def tensor_in_two_shards(folder: Path) -> None:
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")


@bad("llama3", "has no weight_map", "download the file again")
def index_without_map(folder: Path) -> None:
    edit(folder / "model.safetensors.index.json", weight_map=None)


@bad("llama3", r"names a file outside the folder: '\.\./secret'", "download the file again")
def index_leads_outside(folder: Path) -> None:
    edit(folder / "model.safetensors.index.json", weight_map={"a": "../secret"})


@bad("mistral", "the file is truncated", "download the file again")
def truncated(folder: Path) -> None:
    cut(folder / WEIGHTS, 20_000)


@bad("mistral", "truncated within its header", "download the file again")
def truncated_in_header(folder: Path) -> None:
    cut(folder / WEIGHTS, 100)


@bad("mistral", "truncated within its header", "download the file again")
def empty_file(folder: Path) -> None:
    cut(folder / WEIGHTS, 0)


@bad("mistral", r"model\.safetensors is a Git-LFS pointer", "git lfs pull")
def weights_lfs_pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text(LFS_POINTER)


@bad("mistral", "cannot read .*directory", "check that it is a file")
def weights_a_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


@bad("mistral", "header too large", "download the file again")
def header_too_large(folder: Path) -> None:
    write_header(folder, b"{}", length=2**40)


@bad("mistral", "invalid JSON in header", "download the file again")
def header_not_json(folder: Path) -> None:
    write_header(folder, b"{hello world}")


@bad("mistral", "the offsets of its tensors overlap or leave gaps", "download the file again")
def offsets_overlap(folder: Path) -> None:
    edit_header(folder, lambda header: header["model.norm.weight"].update(data_offsets=[0, 64]))


@bad("mistral", "is truncated, or longer than its header says", "download the file again")
def offsets_outside(folder: Path) -> None:
    def move(header: dict[str, Any]) -> None:
        last = max(header.values(), key=lambda entry: entry.get("data_offsets", [0, 0])[1])
        last.update(
            shape=[last["shape"][0] * 2, *last["shape"][1:]],
            data_offsets=[last["data_offsets"][0], 2 * last["data_offsets"][1] - last["data_offsets"][0]],
        )

    edit_header(folder, move)


@bad("mistral", "invalid shape", "download the file again")
def shape_is_not_the_bytes(folder: Path) -> None:
    edit_header(folder, lambda header: header["model.norm.weight"].update(shape=[17]))


@bad("mistral", r"lack the tensor model\.norm\.weight", "different models")
def tensor_missing(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))


@bad("mistral", r"no place for: model\.layers\.0\.self_attn\.q_proj\.bias", "different models")
def tensor_left_over(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(16, np.float32)}))


@bad("mistral", r"model\.norm\.weight has the shape \[4, 4\]; the model takes \[16\] from it", "different models")
def tensor_of_wrong_shape(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": np.zeros((4, 4), np.float32)}))


@bad("bloom", r"query_key_value\.weight has the shape \[\]; the model takes", "different models")
def fused_tensor_without_axes(folder: Path) -> None:
    edit_tensors(
        folder, lambda tensors: tensors.update({"transformer.h.0.self_attention.query_key_value.weight": np.zeros((), np.float32)})
    )


@bad("gpt2", r"c_attn\.bias has the shape \[74\]; the model takes \[24\] from it", "different models")
def fused_tensor_with_a_rest(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"h.0.attn.c_attn.bias": np.zeros(74, np.float32)}))


@bad("phi3", r"layers\.0\.self_attn\.qkv_proj\.weight holds \d+ numbers, the model takes \d+", "different models")
def fused_tensor_with_too_many_rows(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors, name = load_file(folder / WEIGHTS), "model.layers.0.self_attn.qkv_proj.weight"
    save_file({**tensors, name: tensors[name].repeat(2, 1)[:-1]}, folder / WEIGHTS)


@bad("mistral", r"model\.norm\.weight is stored as I64, which is not implemented", "F32, F16, BF16", UnsupportedError)
def tensor_of_integers(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": np.zeros(16, np.int64)}))


@bad("llama2", r"cannot read .*pytorch_model\.bin: it is no regular file", "check that it is a file")
def weights_a_device(folder: Path) -> None:
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin").symlink_to("/dev/zero")


@bad("llama3", "a shard is missing: a{255}", "download the missing file")
def shard_with_a_name_too_long(folder: Path) -> None:
    edit(folder / "model.safetensors.index.json", weight_map={"a": "a" * 300})


@bad("gpt2", r"config\.json is larger than 32 MiB", "download the file again")
def config_of_many_megabytes(folder: Path) -> None:
    os.truncate(folder / "config.json", 33 * 2**20)


@bad("mistral", "is damaged: header too large", "download the file again")
def header_of_many_megabytes(folder: Path) -> None:
    write_header(folder, b"{" + b" " * (17 * 2**20) + b"}")


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, copy_golden: CopyGolden) -> None:
    case = CASES[name]
    folder = copy_golden(case.golden)
    case.damage(folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert type(caught.value) is case.error
    assert_clear(caught.value, case.message, case.hint)
    assert not (folder / "sprung").exists()


def test_refused_without_torch(tmp_path: Path) -> None:
    """Opening never imports torch, whether it succeeds or fails."""
    folders = []
    for number, case in enumerate(CASES.values()):
        folders.append(shutil.copytree(GOLDEN / case.golden, tmp_path / str(number)))
        case.damage(folders[-1])
    program = """
import sys
from pathlib import Path
from tgen.checkpoint.container import open_checkpoint
from tgen.errors import CheckpointError
for folder in sys.argv[1:]:
    try:
        open_checkpoint(Path(folder))
    except CheckpointError as error:
        print(error)
assert "torch" not in sys.modules
"""
    arguments = [sys.executable, "-c", program, str(GOLDEN / "gpt2"), str(GOLDEN / "llama2"), *map(str, folders)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=GOLDEN.parents[1])
    assert len(run.stdout.splitlines()) == len(folders) > 40
