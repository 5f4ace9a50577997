"""GGUF files: the same spec, numbers, tokenizer and text as the folders that they are made from, and clear errors."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import tgen
from tests.checkpoint.gguf_files import write_gguf
from tests.checkpoint.quantised import random_folder
from tests.conftest import GOLDEN
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.checkpoint.gguf.blocks import floats
from tgen.checkpoint.gguf.file import BLOCKS, PLAIN
from tgen.checkpoint.gguf.tensors import split_experts
from tgen.checkpoint.mapped import MappedFiles, read_parameter, widened
from tgen.checkpoint.resolve import resolve
from tgen.checkpoint.stored import StoredTensor
from tgen.errors import CheckpointError, UnsupportedError
from tgen.text.tokenizer import Tokenizer

# What llama.cpp takes as given, so that its files cannot say otherwise.
GIVEN: dict[str, dict[str, Any]] = {
    "gpt_oss": {"swiglu_alpha": 1.702, "swiglu_limit": 7.0},
    "smollm3": {
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": None,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    },
    "gemma2": {"query_pre_attn_scalar": 6},
    "gemma3": {"query_pre_attn_scalar": 6, "layer_types": None},
    "t5": {"relative_attention_max_distance": 128},
    "t5_flan": {"relative_attention_max_distance": 128},
    "umt5": {"relative_attention_max_distance": 128},
    "bert": {"hidden_act": "gelu"},
}
DECODERS = (
    *(
        "ernie4_5",
        "gpt_oss",
        "granite",
        "olmo2",
        "olmo3",
        "seed_oss",
        "smollm3",
        "llama2",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3",
        "phi3",
        "gpt2",
        "starcoder2",
        "mistral",
        "mixtral",
    ),
)


def folder_for(name: str, place: Path) -> Path:
    """A copy of a golden folder with what llama.cpp takes as given."""
    folder = place / name
    shutil.copytree(GOLDEN / name, folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | GIVEN.get(name, {})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [*DECODERS, "bert", "t5", "t5_flan", "umt5"])
def test_a_file_says_what_its_folder_says(name: str, tmp_path: Path) -> None:
    folder, path = folder_for(name, tmp_path), tmp_path / "model.gguf"
    write_gguf(folder, path)
    wanted, found = open_checkpoint(folder, vectors=name == "bert"), open_checkpoint(path)
    if name == "bert":
        assert found.spec.head is None
        wanted = replace(wanted, spec=replace(wanted.spec, head=None))
    compare(wanted, found)


def compare(wanted: Checkpoint, found: Checkpoint) -> None:
    """The same spec, and the same numbers in every parameter."""
    assert found.spec == wanted.spec
    one, other = MappedFiles(), MappedFiles()
    for parameter, match in found.matches.parameters.items():
        expected = widened(*read_parameter(parameter, wanted.matches.parameters[parameter], one))
        np.testing.assert_array_equal(widened(*read_parameter(parameter, match, other)), expected, parameter)


@pytest.mark.parametrize("name", ["qwen2_moe", "qwen3_moe"])
def test_a_mixture_says_what_its_folder_says(name: str, tmp_path: Path) -> None:
    """In llama.cpp all layers of these are mixtures, and the metadata do not say whether weights are normalised."""
    changes = {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": name == "qwen3_moe", "use_sliding_window": False}
    folder = random_folder(name, changes, tmp_path / "folder", torch.float32, 1)
    write_gguf(folder, tmp_path / "model.gguf")
    compare(open_checkpoint(folder), open_checkpoint(tmp_path / "model.gguf"))
    write_gguf(folder, tmp_path / "half.gguf", "F16")  # but for routers, which stay in float32
    assert open_checkpoint(tmp_path / "half.gguf").matches.number_format == "F16"


def test_a_matrix_of_one_row_may_be_a_vector() -> None:
    """llama.cpp's quantiser drops the length of 1."""
    name = "blk.0.ffn_gate_inp_shexp.weight"
    assert split_experts({name: StoredTensor(Path("model.gguf"), "F32", (8,), 0, 32)})[name].shape == (1, 8)


def test_types_are_those_of_ggml() -> None:
    sizes = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert {kind: sizes[kind] for kind in BLOCKS} == BLOCKS
    assert {kind: (sizes[kind][0], sizes[kind][2]) for kind in PLAIN} == PLAIN
    for name, numbers, size in BLOCKS.values():
        assert floats(np.zeros((3, 2 * size), np.uint8), name).shape == (3, 2 * numbers)


def test_the_package_is_asked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UnsupportedError, match="Q4_K need the gguf package"):
        floats(np.zeros((1, 144), np.uint8), "Q4_K")


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_a_file_writes_the_text_of_its_folder(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(GOLDEN / "llama2", path, kind)
    wanted = tgen.load(GOLDEN / "llama2", executor="native").generate("Once upon", max_new_tokens=20, temperature=0)
    assert tgen.load(path, executor="native").generate("Once upon", max_new_tokens=20, temperature=0) == wanted
    assert open_checkpoint(path).matches.number_format == kind


def test_the_tokenizer_comes_from_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(GOLDEN / "llama2", path)
    wanted, found = Tokenizer.load(GOLDEN / "llama2"), Tokenizer.load(path)
    for text in ("Once upon a time", " there  were 3 birds!", "Il était", ""):
        assert found.encode(text, special=False) == wanted.encode(text, special=False)
        assert found.decode(found.encode(text, special=False)) == text


def llama3_factors(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("rope_freqs.weight", np.array([1.0, 2.0, 4.0, 4.0], np.float32))


def test_factors_of_rotations_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(GOLDEN / "llama3", path, extra=llama3_factors)
    rope = open_checkpoint(path).spec.stacks["decoder"].layers[0].attention.rope
    assert rope is not None and getattr(rope.scaling, "divisors", None) == (1.0, 2.0, 4.0, 4.0)


def test_a_split_model_is_opened_by_its_first_part(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_gguf(GOLDEN / "llama2", whole)
    reader = gguf.GGUFReader(whole)
    names = [tmp_path / f"model-{number:05}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(names):
        writer = gguf.GGUFWriter(path, "llama")
        if number:
            writer.add_uint16("split.no", 1)
            for tensor in reader.tensors[3:]:
                writer.add_tensor(tensor.name, tensor.data)
        else:
            copy_metadata(reader, writer)
            writer.add_uint16("split.no", 0)
            writer.add_uint16("split.count", 2)
            for tensor in reader.tensors[:3]:
                writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert open_checkpoint(names[0]).spec == open_checkpoint(whole).spec
    whole.unlink()
    assert resolve(str(tmp_path)) == names[0]
    names[1].unlink()
    with pytest.raises(CheckpointError, match="a part of the model is missing: model-00002-of-00002"):
        open_checkpoint(names[0])


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)


def test_a_folder_with_one_file_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"")
    assert resolve(str(tmp_path)) == tmp_path / "one.gguf"
    (tmp_path / "two.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"several models as GGUF files: one\.gguf, two\.gguf"):
        resolve(str(tmp_path))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(GOLDEN / "llama2", path)
    data = path.read_bytes()
    for length, words in (
        (0, "0 bytes"),
        (3, "3 bytes"),
        (30, "ends at byte 30"),
        (len(data) // 2, "truncated"),
        (len(data) - 1, "truncated"),
    ):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=words):
            open_checkpoint(path)
    path.write_bytes(b"XXXX" + data[4:])
    with pytest.raises(CheckpointError, match="no GGUF file"):
        open_checkpoint(path)
    path.write_bytes(data[:4] + data[4:8][::-1] + data[8:])
    with pytest.raises(UnsupportedError, match="byte order of other processors"):
        open_checkpoint(path)


def test_an_absurd_width_of_heads_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(GOLDEN / "llama2", path, extra=lambda writer: writer.add_key_length(2**31 - 2))
    with pytest.raises(CheckpointError, match="attn_q"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "mamba", "general.architecture = 'mamba' is not implemented"),
        ("general.type", "adapter", "holds no model: its general.type is 'adapter'"),
        ("llama.new_thing", "1", "llama.new_thing = 1 is not implemented"),
        ("llama.rope.scaling.type", "odd", "rope.scaling.type = 'odd' is not implemented"),
    ],
)
def test_what_is_not_implemented_is_named(key: str, value: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"

    def change(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        writer.add_string(key, value)

    write_gguf(GOLDEN / "llama2", path, extra=change)
    with pytest.raises(UnsupportedError, match=words):
        open_checkpoint(path)
