"""config.json in both dialects, and whatever else may stand in it."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN, GOLDENS, config_of, spec_of
from tests.sweeps import KINDS, sweep
from tgen.checkpoint.container import Checkpoint, open_checkpoint
from tgen.errors import CheckpointError, TgenError, UnsupportedError
from tgen.executors.torch.load import load_model
from tgen.executors.torch.transformer import Transformer
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.spec.positions import LinearScaling, Llama3Scaling, PositionTable, RopeSpec
from tgen.spec.records import MlpSpec, ModelSpec, StackSpec
from tgen.spec.recurrent import StateSpaceSpec

HUGE = 10**400
NESTED: dict[str, Any] = {"a": [{}]}
WRONG = ["", "x", "12", None, True, False, -1, 0, 1, 3, 7.5, 1e308, float("nan"), float("inf"), 2**40, HUGE, [], [1], NESTED, [NESTED]]
OPTIONAL = (
    "head_dim layer_types n_positions partial_rotary_factor rope_parameters rope_scaling rope_theta rotary_pct sliding_window".split()
)


def decoder(spec: ModelSpec) -> StackSpec:
    assert spec.decoder is not None
    return spec.decoder


def damaged(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config with every value, nested ones too, exchanged for every wrong one."""
    for key, value in values.items():
        for wrong in WRONG:
            yield {**values, key: wrong}
        if isinstance(value, dict):
            yield from ({**values, key: inner} for inner in damaged(value))


def run(model: Transformer) -> None:
    """Read three ids, and another three as their source where there is an encoder and a decoder."""
    ids = torch.tensor([[1, 2, 3]])
    source = model.read_source(ids) if model.spec.kind == "encoder-decoder" else None
    assert model(ids, source=source).shape == (1, 3, model.spec.width)


# Their values go through the same lines as those of another golden.
ALIKE = ("camembert", "deberta_plain", "electra_wide", "longt5", "mt5", "pegasus", "xlm_roberta")


@pytest.mark.parametrize("name", sweep((name for name in GOLDENS if name not in ALIKE), KINDS.__contains__))
def test_no_value_brings_it_down(name: str, copy_golden: Callable[[str], Path]) -> None:
    """Whatever stands in config.json: the model runs, or one of our own errors says why it does not."""
    folder = copy_golden(name)
    messages: set[str] = set()
    tried: set[ModelSpec] = set()
    for values in damaged({**dict.fromkeys(OPTIONAL), **config_of(name)}):
        try:
            spec = spec_of(values)
            if spec not in tried:
                tried.add(spec)
                (folder / "config.json").write_text(json.dumps(values))
                run(load_model(open_checkpoint(folder), torch.device("cpu"), torch.float32))
        except TgenError as error:
            assert error.hint, error.message
            assert len(error.message) < 300
            messages.add(error.message)
    assert len(messages) > 50


def opened(values: dict[str, Any], folder: Path) -> Checkpoint:
    """A golden's copy, opened with another config.json."""
    (folder / "config.json").write_text(json.dumps(values))
    return open_checkpoint(folder)


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.5, True, False, "x", [0], {"a": 0}])
@pytest.mark.parametrize("key", ["logits_scale", "use_new_rope"])
def test_a_key_that_nobody_knows_is_refused(key: str, value: object, copy_golden: Callable[[str], Path]) -> None:
    """Naming it and its value: zero and false may switch something off that is on by default."""
    with pytest.raises(UnsupportedError, match=re.escape(f"config.json: {key} = {value!r} is not implemented")) as caught:
        opened({**config_of("llama3"), key: value}, copy_golden("llama3"))
    assert caught.value.hint is not None and "take it out" in caught.value.hint


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_value_that_says_nothing_is_left_alone(value: object, copy_golden: Callable[[str], Path]) -> None:
    opened({**config_of("mistral"), "logits_scale": value}, copy_golden("mistral"))


def test_several_unknown_keys(copy_golden: Callable[[str], Path]) -> None:
    values = config_of("llama3")
    values |= {"attn_logit_softcapping": 50.0, "sliding_window": 4, "unused": None, "off": False}
    values["rope_parameters"] = {**values["rope_parameters"], "attention_factor": 2.0}
    expected = "attn_logit_softcapping = 50.0, sliding_window = 4, off = False and 1 more is not implemented"
    folder = copy_golden("llama3")
    with pytest.raises(UnsupportedError, match=expected):
        opened(values, folder)
    with pytest.raises(UnsupportedError, match=r"json: rope_parameters\.attention_factor = 2\.0 is not implemented"):
        opened({**config_of("llama3"), "rope_parameters": values["rope_parameters"]}, folder)
    two = config_of("gemma3")
    with pytest.raises(UnsupportedError, match=r"json: rope_parameters\.other = 3 is not implemented"):
        opened({**two, "rope_parameters": {**two["rope_parameters"], "other": 3}}, copy_golden("gemma3"))


# Keys that folders of the hub hold besides those that transformers writes today, and values under which a variant is another model.
OFFICIAL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_ctx": 64, "output_past": True, "_num_labels": 2, "torchscript": False, "num_labels": 2, "pruned_heads": {}, "top_k": 50},
    "gpt_neox": {"custom_pipelines": {"text-generation": {"impl": "x.py"}}, "is_decoder": False, "torch_dtype": "float16"},
    "llama3": {"max_sequence_length": 64, "rope_interleaved": False, "is_llama_config": True, "unsloth_fixed": True, "pretraining_tp": 1},
    "mistral": {"attention_bias": False, "_flash_attn_2_enabled": True, "attn_implementation": "sdpa"},
    "qwen2": {"use_mrope": False, "attention_bias": False, "transformers.js_config": {"dtype": "q4"}},
    "qwen3": {"mlp_bias": False, "_attn_implementation_autoset": True},
    "phi3": {"attention_bias": False, "mlp_bias": False, "lm_head_bias": False, "full_attn_mod": 1, "interpolate_factor": 1},
    "gemma2": {"sliding_window_size": 5, "cache_implementation": "hybrid"},
    "bloom": {"attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "n_inner": None, "offset_alibi": 100},
    "opt": {"prefix": "</s>", "learned_embeddings": True, "scale_embeddings": False, "output_past": True},
    "bart": {
        "add_bias_logits": False,
        "static_position_embeddings": False,
        "save_step": 58,
        "replacing_rate": 0,
        "extra_pos_embeddings": 2,
    },
    "marian": {"static_position_embeddings": True, "add_bias_logits": False, "num_beams": 4, "_num_labels": 3},
    "bert": {"directionality": "bidi", "pooler_fc_size": 768, "pruned_heads": {}, "use_bfloat16": False},
    "roberta": {"language": "english", "name": "Roberta", "is_decoder": False, "add_cross_attention": False},
    "gemma": {"hidden_activation": None, "rope_scaling": None},
    "gemma3_images": {"initializer_range": 0.02, "boi_token_index": 255999, "eoi_token_index": 256000},
    "starcoder2": {
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": 1e-5,
        "mlp_type": "default",
        "norm_type": "layer_norm",
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
    },
    "stablelm": {"norm_eps": 1e-5, "rope_pct": 0.25, "rotary_scaling_factor": 1.0, "num_heads": 32},
    "smollm3": {"max_window_layers": 28, "pretraining_tp": 2},
    "cohere2": {
        "layer_switch": 4,
        "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 1.0,
        "use_embedding_sharing": True,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_parallel_embedding": True,
    },
    "hunyuan": {"add_classification_head": False, "attention_head_dim": 6, "use_cla": False, "use_qk_norm": True, "norm_type": "rms"},
    "apertus": {"hidden_dropout": 0.0, "mlp_bias": False, "post_norm": False, "qk_norm": True},
    "mpt": {"init_config": {"name": "x"}, "tokenizer_name": "x", "verbose": 0, "no_bias": True, "norm_type": "low_precision_layernorm"},
    "gptj": {"rotary": True, "scale_attn_weights": True},
    "falcon_h1": {
        "mamba_use_mlp": True,
        "mlp_expansion_factor": 8,
        "num_logits_to_keep": 1,
        "time_step_rank": 256,
        "attn_layer_indices": None,
    },
    "nemotron_h": {
        "attention_head_dim": 9,
        "rms_norm_eps": 1e-5,
        "norm_eps": 1e-5,
        "rope_theta": 10000,
        "time_step_rank": 256,
        "expand": 2,
    },
    "t5": {"output_past": True, "is_decoder": False, "num_return_sequences": 1, "xla_device": None, "do_sample": False},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {"pruned_heads": {"0": [1]}, "add_cross_attention": True},
    "llama3": {"rope_interleaved": True, "add_cross_attention": True},
    "mistral": {"attention_bias": True},
    "qwen2": {"use_mrope": True, "mlp_bias": True},
    "phi3": {"attention_bias": True, "mlp_bias": True, "lm_head_bias": True, "full_attn_mod": 2, "interpolate_factor": 2},
    "gemma2": {"sliding_window_size": 6},
    "bloom": {"n_inner": 48},
    "opt": {"learned_embeddings": False, "scale_embeddings": True},
    "bart": {"static_position_embeddings": True, "add_bias_logits": True},
    "marian": {"static_position_embeddings": False},
    "bert": {"is_decoder": True},
    "starcoder2": {"mlp_type": "gated", "norm_type": "rms", "scale_attn_weights": False},
    "stablelm": {"qk_layernorm": True, "rotary_scaling_factor": 2.0},
    "cohere2": {"use_parallel_block": False, "use_qk_norm": True, "position_embedding_type": "alibi"},
    "hunyuan": {"use_cla": True, "use_qk_norm": False},
    "apertus": {"post_norm": True, "qk_norm": False},
    "falcon": {"alibi": True, "num_ln_in_parallel_attn": 2},
    "falcon_grouped": {"parallel_attn": False},
    "mpt": {"logit_scale": "inv_sqrt_d_model", "expansion_ratio": 3, "embedding_fraction": 0.5},
    "gptj": {"rotary_dim": 5, "scale_attn_weights": False},
    "falcon_h1": {"mamba_use_mlp": False, "hidden_act": "relu", "logits_scale": 0},
    "nemotron_h": {"sliding_window": 5, "attention_bias": True, "mamba_hidden_act": "relu", "logits_scale": 0},
    "hunyuan_moe": {"use_mla": True, "moe_intermediate_size": [3, 4], "num_shared_expert": 2, "num_experts_per_tok": 1, "logits_scale": 0},
    "blenderbot_small": {"do_blenderbot_90_layernorm": False, "normalize_before": True, "layernorm_variant": "bart", "logits_scale": 0},
    "gemma3n": {"logits_scale": 0, "use_bidirectional_attention": False},
    "gemma4_moe": {"logits_scale": 0, "use_bidirectional_attention": "all"},
    "rwkv": {"logits_scale": 0, "is_causal": False},
    "t5": {"is_decoder": True},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_keys_are_accepted(name: str, copy_golden: Callable[[str], Path]) -> None:
    assert opened({**config_of(name), **OFFICIAL[name]}, copy_golden(name)).spec == open_checkpoint(GOLDEN / name).spec


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, values in VARIANTS.items() for key in values])
def test_variants_are_refused(name: str, key: str, copy_golden: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedError, match=f"config.json: {key} = "):
        opened({**config_of(name), key: VARIANTS[name][key]}, copy_golden(name))


@pytest.mark.parametrize("name", GOLDENS)
def test_everything_that_transformers_writes_is_accepted(name: str, copy_golden: Callable[[str], Path]) -> None:
    """Also what it leaves out when it has the default value."""
    transformers = pytest.importorskip("transformers")
    values = config_of(name)
    written = json.loads(transformers.AutoConfig.from_pretrained(GOLDEN / name).to_json_string(use_diff=False))
    assert len(written) > len(values) / 2
    opened(written, copy_golden(name))


@pytest.mark.parametrize("name", ["llama3", "qwen3", "qwen2_window", "phi"])
def test_both_dialects_give_one_spec(name: str) -> None:
    new = config_of(name)
    old = copy.deepcopy(new)
    rope = old.pop("rope_parameters")
    old.pop("layer_types", None)
    old["rope_theta"] = rope.pop("rope_theta")
    old["partial_rotary_factor"] = rope.pop("partial_rotary_factor", None)
    kind = rope.pop("rope_type")
    for spelling in ("rope_type", "type"):
        old["rope_scaling"] = {spelling: kind, **rope} if rope else None
        assert spec_of(old) == spec_of(new)


def test_two_ropes_in_both_dialects() -> None:
    """Gemma 3 turns layers with a window by a base of their own; the scaling is for the others alone."""
    new = config_of("gemma3")
    old = {key: value for key, value in new.items() if key not in ("rope_parameters", "layer_types")}
    old |= {"rope_theta": 300.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_local_base_freq": 40.0}
    spec = spec_of(new)
    assert spec_of(old) == spec
    local, full = RopeSpec(6, 40.0), RopeSpec(6, 300.0, LinearScaling(2.0))
    assert [layer.attention.rope for layer in decoder(spec).layers] == [local, local, full, local]
    for key in ("rope_theta", "rope_local_base_freq", "rope_scaling"):
        del old[key]
    new["rope_parameters"] = {kind: {"rope_type": "default"} for kind in ("full_attention", "sliding_attention")}
    for silent in (old, new):
        assert {layer.attention.rope for layer in decoder(spec_of(silent)).layers} == {RopeSpec(6, 10000.0), RopeSpec(6, 1e6)}


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 0.25),
        ({"scale_decoder_outputs": False}, None),
        ({"scale_decoder_outputs": None}, 0.25),
        ({"scale_decoder_outputs": None, "tie_word_embeddings": False}, None),
    ],
)
def test_scale_of_t5(changes: dict[str, Any], scale: float | None) -> None:
    """Version 1.0 has it, version 1.1 has not; until transformers 5 the mark was whether the head is tied."""
    head = spec_of({**config_of("t5"), **changes}).head
    assert head is not None and head.scale == scale


@pytest.mark.parametrize(("changes", "expected"), [({}, 2.0), ({"attn_logit_softcapping": None}, None), (None, 50.0)])
def test_softcap_of_gemma_2(changes: dict[str, Any] | None, expected: float | None) -> None:
    """Null is none; absent is what the first such models have."""
    values = config_of("gemma2")
    if changes is None:
        del values["attn_logit_softcapping"]
    assert decoder(spec_of({**values, **(changes or {})})).layers[0].attention.softcap == expected


@pytest.mark.parametrize(
    ("limits", "expected"), [([0, 1e308], (0, math.inf)), ([-HUGE, 0.5], (-math.inf, 0.5)), ([0.1, HUGE], (0.1, math.inf))]
)
def test_a_step_that_float32_cannot_hold_is_not_bounded(
    limits: list[float], expected: tuple[float, float], copy_golden: Callable[[str], Path]
) -> None:
    checkpoint = opened({**config_of("mamba2"), "time_step_limit": limits}, copy_golden("mamba2"))
    (mixer,) = decoder(checkpoint.spec).layers[0].mixers
    assert isinstance(mixer, StateSpaceSpec) and mixer.steps == expected
    run(load_model(checkpoint, torch.device("cpu"), torch.float32))


@pytest.mark.parametrize(
    "changes", [{"layers_block_type": ["x"]}, {"layers_block_type": [1]}, {"layers_block_type": None, "hybrid_override_pattern": "Mx"}]
)
def test_kinds_of_layers_that_nemotron_h_lacks(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="layers_block_type are not implemented"):
        spec_of({**config_of("nemotron_h"), **changes})


def test_layers_of_nemotron_h_by_letters() -> None:
    values = config_of("nemotron_h")
    assert (
        spec_of({**values, "layers_block_type": None})
        == spec_of({**values, "layers_block_type": ["mamba", "attention", "mlp"]})
        == spec_of(values)
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [([1, 2, 1], "moe_topk has 3 numbers for 2 layers"), ([1, 5], "5 experts for each token"), ([1, 0], "moe_topk = 0")],
)
def test_experts_of_each_layer_of_hunyuan(value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        spec_of({**config_of("hunyuan_moe"), "moe_topk": value, "num_experts_per_tok": value})
    with pytest.raises(CheckpointError, match="layers with 4 to 8 experts; all must have as many"):
        spec_of({**config_of("hunyuan_moe"), "num_experts": [4, 8], "num_local_experts": [4, 8]})


def test_gemma_1_means_the_other_gelu() -> None:
    """Its first folders say "gelu" and mean the tanh formula; what they say in the later key has no effect."""
    part = decoder(spec_of({**config_of("gemma"), "hidden_activation": "relu"})).layers[0].feed_forward
    assert isinstance(part, MlpSpec) and part.activation == "gelu_tanh"


def test_the_residual_factor_of_granite_is_in_epsilon_and_embeddings() -> None:
    """A stream divided by the factor holds the same numbers."""
    stack = decoder(spec_of({**config_of("granite"), "residual_multiplier": 0.5, "embedding_multiplier": 3.0, "rms_norm_eps": 0.01}))
    assert stack.embedding_scale == 6.0
    assert {layer.norm.eps for layer in stack.layers} == {0.04}
    assert stack.final_norm is not None and stack.final_norm.eps == 0.04


@pytest.mark.parametrize("name", ["gemma3_images", "mistral3", "qwen2_vl", "qwen3_vl"])
def test_a_key_inside_the_text_model_is_refused(name: str, copy_golden: Callable[[str], Path]) -> None:
    values = config_of(name)
    values["text_config"] = {**values["text_config"], "logits_scale": 2}
    with pytest.raises(UnsupportedError, match=r"config.json: text_config\.logits_scale = 2 is not implemented"):
        opened(values, copy_golden(name))


@pytest.mark.parametrize(
    ("name", "eyes"), [("gemma3_images", "model.vision_tower."), ("mistral3", "vision_tower."), ("qwen3_vl", "model.visual.")]
)
def test_tensors_of_eyes_are_left_out_by_name(name: str, eyes: str) -> None:
    left_out = open_checkpoint(GOLDEN / name).matches.left_out
    assert any(one.startswith(eyes) for one in left_out)
    assert not any("language_model" in one for one in left_out)


def wrapped(kind: str, folder: Path) -> None:
    """Make a folder of a text model that of a model around it, which has ears and eyes, and keys that no layer reads."""
    values = json.loads((folder / "config.json").read_text("utf-8"))
    outer = {"model_type": kind, "text_config": values, "vision_config": {"x": 1}, "audio_config": {"y": False}, "audio_token_id": 7}
    (folder / "config.json").write_text(json.dumps(outer))
    tensors = load_file(folder / "model.safetensors")
    tensors = {one.replace("model.", "model.language_model.", 1): tensor for one, tensor in tensors.items()}
    for part in ("vision_tower", "audio_tower", "embed_vision", "embed_audio"):
        tensors[f"model.{part}.x.weight"] = torch.ones(2)
    if kind == "gemma3n":
        tensors["model.language_model.layers.3.self_attn.k_proj.weight"] = torch.ones(2)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(("name", "kind"), [("gemma3n", "gemma3n"), ("gemma4_moe", "gemma4")])
def test_a_model_with_ears_and_eyes_around_a_text_model(name: str, kind: str, copy_golden: Callable[[str], Path]) -> None:
    folder = copy_golden(name)
    wrapped(kind, folder)
    checkpoint, alone = open_checkpoint(folder), open_checkpoint(GOLDEN / name)
    assert checkpoint.spec == alone.spec
    assert len(checkpoint.matches.left_out) == (5 if name == "gemma3n" else 4)
    ids = torch.tensor([[9, 8, 11]])
    found, expected = (load_model(one, torch.device("cpu"), torch.float32)(ids) for one in (checkpoint, alone))
    assert torch.equal(found, expected)
    values = json.loads((folder / "config.json").read_text("utf-8"))
    for changes in ({"text_config": {**values["text_config"], "logits_scale": False}}, {"hearing": 0}):
        with pytest.raises(UnsupportedError, match="is not implemented"):
            opened({**values, **changes}, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_shared_layers": 3}, "num_kv_shared_layers = 3 leaves no keys of each kind in 4 layers"),
        ({"num_kv_shared_layers": 9}, "num_kv_shared_layers = 9 leaves no keys"),
        ({"intermediate_size": [10, 8]}, "intermediate_size has 2 numbers for 4 layers"),
        ({"activation_sparsity_pattern": [0.5, 0.5, 0.5, 1.0]}, "this activation_sparsity_pattern is not implemented"),
        ({"altup_active_idx": 3}, "altup_active_idx = 3 is not a whole number from 0 to 2"),
    ],
)
def test_layers_of_gemma_3n(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TgenError, match=message):
        spec_of({**config_of("gemma3n"), **changes})


def test_heads_of_gemma_4_in_both_dialects() -> None:
    """transformers 5 lists what differs layer by layer; folders of the hub name the sizes of full layers. Twelve billion: no vectors."""
    new = config_of("gemma4_moe")
    old = {key: value for key, value in new.items() if key != "per_layer_config"} | {"global_head_dim": 8, "num_global_key_value_heads": 1}
    assert spec_of(old) == spec_of(new)
    assert spec_of({**old, "rope_parameters": None}) != spec_of(new)
    other = {**old, "model_type": "gemma4_unified_text", "hidden_size_per_layer_input": None, "vocab_size_per_layer_input": None}
    layers = decoder(spec_of({**other, "enable_moe_block": None})).layers
    assert all(layer.vector is None and layer.experts is None for layer in layers)
    with pytest.raises(UnsupportedError, match=r"per_layer_config\.1\.window = 3 is not implemented"):
        config = Config({**new, "per_layer_config": {"1": {"head_dim": 8, "window": 3}}})
        find_family(config.model_type).spec(config)
        config.refuse_unread()


def test_keys_that_no_layer_of_gemma_3n_reads_are_left_out(copy_golden: Callable[[str], Path]) -> None:
    """Folders hold them for the last layers, too."""
    folder = copy_golden("gemma3n")
    tensors = load_file(folder / "model.safetensors")
    extra = {f"model.layers.3.self_attn.{part}.weight": torch.ones(2) for part in ("k_proj", "v_proj", "k_norm")}
    save_file(tensors | extra, folder / "model.safetensors")
    assert set(open_checkpoint(folder).matches.left_out) == extra.keys()


def test_qwen2_vl_keeps_the_settings_of_its_text_model_among_its_own(copy_golden: Callable[[str], Path]) -> None:
    """So did its first folders, with a kind of rotation that is the plain one for a text."""
    values = config_of("qwen2_vl")
    rope = {**values["text_config"].pop("rope_parameters"), "rope_type": "mrope"}
    flat = {**values.pop("text_config"), **values, "rope_scaling": rope, "rope_theta": rope["rope_theta"]}
    folder = copy_golden("qwen2_vl")
    assert opened(flat, folder).spec == open_checkpoint(GOLDEN / "qwen2_vl").spec
    with pytest.raises(UnsupportedError, match="logits_scale"):
        opened({**flat, "logits_scale": 2}, folder)


def test_gemma_3_with_images_needs_few_settings() -> None:
    """The first folders name only what differs from the defaults of the family."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    spec = spec_of({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}})
    attention = decoder(spec).layers[0].attention
    assert (spec.vocab, attention.heads, attention.kv_heads, attention.head_dim, attention.window) == (262208, 8, 4, 256, 1024)
    assert spec.head is not None and spec.head.tied


def test_positions_of_roberta() -> None:
    """They are counted from the row after that of the padding token, 3 here."""
    spec = spec_of(config_of("roberta"))
    assert spec.encoder is not None and spec.encoder.positions == PositionTable("learned", 68, 4)
    assert spec.context == 64


def test_rope_of_llama_3() -> None:
    rope = decoder(spec_of(config_of("llama3"))).layers[0].attention.rope
    assert rope is not None
    assert (rope.dim, rope.theta, rope.scaling) == (8, 50.0, Llama3Scaling(4.0, 1.0, 4.0, 16))


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("mistral", {}, [6, 6]),
        ("mistral", {"sliding_window": None}, [None, None]),
        ("llama3", {"sliding_window": 6}, [None, None]),
        ("qwen2", {}, [None, None]),
        ("qwen2", {"use_sliding_window": True}, [None, None]),  # starts at layer 28
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, [None, 6]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0}, [6, 6]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": None}, [None, None]),
        ("phi3", {}, [5, 5]),
        ("gemma2", {}, [5, None]),
        ("gemma3", {}, [5, 5, None, 5]),
        ("gemma3", {"layer_types": None}, [5, 5, None, 5]),
        ("gemma3", {"layer_types": None, "sliding_window_pattern": 2}, [5, None, 5, None]),
        ("qwen2_window", {}, [None, 5, 5]),
        ("qwen2_window", {"layer_types": None}, [None, 5, 5]),
        ("qwen2_window", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, [5, None, 5]),
    ],
)
def test_windows(name: str, changes: dict[str, Any], expected: list[int | None]) -> None:
    spec = spec_of({**config_of(name), **changes})
    assert [layer.attention.window for layer in decoder(spec).layers] == expected
