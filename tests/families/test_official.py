"""Folders as the hub has them: every key of their config.json is read or known, nothing in them asks for a warning, and every tensor that
they hold beside the model's own has its place.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import spec_of
from tgen.checkpoint.generation import parse_generation
from tgen.checkpoint.matching import match_tensors, settle_head
from tgen.checkpoint.stored import StoredTensor
from tgen.families.config import Config
from tgen.families.registry import find_family
from tgen.spec.shapes import parameter_count, parameters

BERT = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
T5 = {
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
}
BART = {
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0,
    "decoder_layers": 12,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 200,
    "max_position_embeddings": 1024,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "scale_embedding": True,
    "use_cache": True,
}
OLD_BART = {
    "_num_labels": 3,
    "add_bias_logits": False,
    "add_final_layer_norm": True,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    "normalize_before": True,
    "output_past": True,
    "static_position_embeddings": False,
}
# The config.json of each, what its weights hold besides, and whether they hold the head that fills masks or writes.
FOLDERS: dict[str, tuple[dict[str, Any], tuple[str, ...], bool]] = {
    "distilbert/distilbert-base-uncased": (
        {
            "activation": "gelu",
            "architectures": ["DistilBertForMaskedLM"],
            "attention_dropout": 0.1,
            "dim": 768,
            "dropout": 0.1,
            "hidden_dim": 3072,
            "initializer_range": 0.02,
            "max_position_embeddings": 512,
            "model_type": "distilbert",
            "n_heads": 12,
            "n_layers": 6,
            "pad_token_id": 0,
            "qa_dropout": 0.1,
            "seq_classif_dropout": 0.2,
            "sinusoidal_pos_embds": False,
            "tie_weights_": True,
            "transformers_version": "4.10.0.dev0",
            "vocab_size": 30522,
        },
        (),
        True,
    ),
    "intfloat/multilingual-e5-base": (
        {
            **BERT,
            "architectures": ["XLMRobertaModel"],
            "bos_token_id": 0,
            "classifier_dropout": None,
            "eos_token_id": 2,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 514,
            "model_type": "xlm-roberta",
            "output_past": True,
            "pad_token_id": 1,
            "position_embedding_type": "absolute",
            "torch_dtype": "float32",
            "type_vocab_size": 1,
            "use_cache": True,
            "vocab_size": 250002,
        },
        ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"),
        False,
    ),
    "almanach/camembert-base": (
        {
            **BERT,
            "architectures": ["CamembertForMaskedLM"],
            "bos_token_id": 5,
            "eos_token_id": 6,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 514,
            "model_type": "camembert",
            "output_past": True,
            "pad_token_id": 1,
            "type_vocab_size": 1,
            "vocab_size": 32005,
        },
        ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias", "lm_head.decoder.weight"),
        True,
    ),
    "google/electra-small-generator": (
        {
            **BERT,
            "architectures": ["ElectraForMaskedLM"],
            "embedding_size": 128,
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_attention_heads": 4,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "electra",
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "summary_activation": "gelu",
            "summary_last_dropout": 0.1,
            "summary_type": "first",
            "summary_use_proj": True,
            "type_vocab_size": 2,
            "vocab_size": 30522,
        },
        ("electra.embeddings.position_ids", "generator_lm_head.weight"),
        True,
    ),
    "google/electra-base-discriminator": (
        {
            **BERT,
            "architectures": ["ElectraForPreTraining"],
            "embedding_size": 768,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "electra",
            "pad_token_id": 0,
            "type_vocab_size": 2,
            "vocab_size": 30522,
        },
        tuple(f"discriminator_predictions.{part}.{kind}" for part in ("dense", "dense_prediction") for kind in ("weight", "bias")),
        False,
    ),
    "albert/albert-base-v2": (
        {
            **BERT,
            "architectures": ["AlbertForMaskedLM"],
            "attention_probs_dropout_prob": 0,
            "bos_token_id": 2,
            "classifier_dropout_prob": 0.1,
            "down_scale_factor": 1,
            "embedding_size": 128,
            "eos_token_id": 3,
            "gap_size": 0,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0,
            "inner_group_num": 1,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "albert",
            "net_structure_type": 0,
            "num_hidden_groups": 1,
            "num_memory_blocks": 0,
            "pad_token_id": 0,
            "type_vocab_size": 2,
            "vocab_size": 30000,
        },
        ("albert.pooler.weight", "albert.pooler.bias", "predictions.decoder.weight"),
        True,
    ),
    "sentence-transformers/all-mpnet-base-v2": (
        {
            **BERT,
            "_name_or_path": "microsoft/mpnet-base",
            "architectures": ["MPNetForMaskedLM"],
            "bos_token_id": 0,
            "eos_token_id": 2,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 514,
            "model_type": "mpnet",
            "pad_token_id": 1,
            "relative_attention_num_buckets": 32,
            "vocab_size": 30527,
        },
        ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"),
        False,
    ),
    "answerdotai/ModernBERT-base": (
        {
            "architectures": ["ModernBertForMaskedLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 50281,
            "classifier_activation": "gelu",
            "classifier_bias": False,
            "classifier_dropout": 0.0,
            "classifier_pooling": "mean",
            "cls_token_id": 50281,
            "decoder_bias": True,
            "deterministic_flash_attn": False,
            "embedding_dropout": 0.0,
            "eos_token_id": 50282,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0,
            "gradient_checkpointing": False,
            "hidden_activation": "gelu",
            "hidden_size": 768,
            "initializer_cutoff_factor": 2.0,
            "initializer_range": 0.02,
            "intermediate_size": 1152,
            "layer_norm_eps": 1e-05,
            "local_attention": 128,
            "local_rope_theta": 10000.0,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "mlp_dropout": 0.0,
            "model_type": "modernbert",
            "norm_bias": False,
            "norm_eps": 1e-05,
            "num_attention_heads": 12,
            "num_hidden_layers": 22,
            "pad_token_id": 50283,
            "position_embedding_type": "absolute",
            "sep_token_id": 50282,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "vocab_size": 50368,
        },
        ("decoder.weight",),
        True,
    ),
    "microsoft/deberta-v3-base": (
        {
            **BERT,
            "layer_norm_eps": 1e-7,
            "max_position_embeddings": 512,
            "max_relative_positions": -1,
            "model_type": "deberta-v2",
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "position_buckets": 256,
            "relative_attention": True,
            "share_att_key": True,
            "type_vocab_size": 0,
            "vocab_size": 128100,
        },
        (
            "lm_predictions.lm_head.bias",
            *(f"lm_predictions.lm_head.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")),
            *(f"mask_predictions.{part}.{kind}" for part in ("dense", "LayerNorm", "classifier") for kind in ("weight", "bias")),
        ),
        False,
    ),
    "google/mt5-small": (
        {
            **T5,
            "architectures": ["MT5ForConditionalGeneration"],
            "model_type": "mt5",
            "tokenizer_class": "T5Tokenizer",
            "vocab_size": 250112,
        },
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "google/umt5-small": (
        {
            **T5,
            "architectures": ["UMT5ForConditionalGeneration"],
            "classifier_dropout": 0.0,
            "dense_act_fn": "gelu_new",
            "is_gated_act": True,
            "model_type": "umt5",
            "relative_attention_max_distance": 128,
            "scalable_attention": True,
            "tokenizer_class": "T5Tokenizer",
            "vocab_size": 256384,
        },
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "google/byt5-small": (
        {
            **T5,
            "architectures": ["T5ForConditionalGeneration"],
            "d_ff": 3584,
            "d_model": 1472,
            "gradient_checkpointing": False,
            "model_type": "t5",
            "num_decoder_layers": 4,
            "num_layers": 12,
            "tokenizer_class": "ByT5Tokenizer",
            "vocab_size": 384,
        },
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "google/long-t5-tglobal-base": (
        {
            **T5,
            "architectures": ["LongT5ForConditionalGeneration"],
            "d_ff": 2048,
            "d_model": 768,
            "encoder_attention_type": "transient-global",
            "global_block_size": 16,
            "local_radius": 127,
            "model_type": "longt5",
            "n_positions": 4096,
            "num_decoder_layers": 12,
            "num_heads": 12,
            "num_layers": 12,
            "relative_attention_max_distance": 128,
            "vocab_size": 32128,
        },
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "facebook/nllb-200-distilled-600M": (
        {
            **BART,
            "architectures": ["M2M100ForConditionalGeneration"],
            "model_type": "m2m_100",
            "tokenizer_class": "NllbTokenizer",
            "vocab_size": 256206,
        },
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "facebook/m2m100_418M": (
        {
            **BART,
            "architectures": ["M2M100ForConditionalGeneration"],
            "early_stopping": True,
            "encoder_layerdrop": 0.05,
            "gradient_checkpointing": False,
            "model_type": "m2m_100",
            "num_beams": 5,
            "vocab_size": 128112,
        },
        ("model.encoder.embed_positions.weights", "model.decoder.embed_positions.weights", "lm_head.weight"),
        True,
    ),
    "facebook/mbart-large-50-many-to-many-mmt": (
        {
            **BART,
            **OLD_BART,
            "architectures": ["MBartForConditionalGeneration"],
            "early_stopping": True,
            "forced_eos_token_id": 2,
            "model_type": "mbart",
            "normalize_embedding": True,
            "num_beams": 5,
            "tokenizer_class": "MBart50Tokenizer",
            "vocab_size": 250054,
        },
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
    "google/pegasus-xsum": (
        {
            **BART,
            **OLD_BART,
            "architectures": ["PegasusForConditionalGeneration"],
            "decoder_layers": 16,
            "decoder_start_token_id": 0,
            "do_blenderbot_90_layernorm": False,
            "encoder_layers": 16,
            "eos_token_id": 1,
            "extra_pos_embeddings": 1,
            "force_bos_token_to_be_generated": False,
            "forced_eos_token_id": 1,
            "length_penalty": 0.6,
            "max_length": 64,
            "max_position_embeddings": 512,
            "model_type": "pegasus",
            "normalize_embedding": False,
            "num_beams": 8,
            "pad_token_id": 0,
            "static_position_embeddings": True,
            "vocab_size": 96103,
        },
        ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight", "lm_head.weight"),
        True,
    ),
    "facebook/blenderbot-400M-distill": (
        {
            **BART,
            **OLD_BART,
            "activation_function": "gelu",
            "architectures": ["BlenderbotForConditionalGeneration"],
            "bos_token_id": 1,
            "decoder_attention_heads": 32,
            "decoder_ffn_dim": 5120,
            "decoder_start_token_id": 1,
            "do_blenderbot_90_layernorm": True,
            "d_model": 1280,
            "encoder_attention_heads": 32,
            "encoder_ffn_dim": 5120,
            "encoder_layers": 2,
            "encoder_no_repeat_ngram_size": 3,
            "extra_layer_norm": False,
            "extra_pos_embeddings": 0,
            "force_bos_token_to_be_generated": False,
            "forced_eos_token_id": 2,
            "layernorm_variant": "prelayernorm",
            "length_penalty": 0.65,
            "max_length": 60,
            "max_position_embeddings": 128,
            "min_length": 20,
            "model_type": "blenderbot",
            "no_repeat_ngram_size": 3,
            "normalize_embedding": False,
            "num_beams": 10,
            "num_hidden_layers": 2,
            "pad_token_id": 0,
            "unk_token_id": 3,
            "vocab_size": 8008,
        },
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
        True,
    ),
}
# Parameters of models that everybody counts.
SIZES = {
    "distilbert/distilbert-base-uncased": 67e6,
    "albert/albert-base-v2": 11.2e6,
    "google/mt5-small": 300e6,
    "google/umt5-small": 307e6,
    "google/long-t5-tglobal-base": 248e6,
    "facebook/nllb-200-distilled-600M": 615e6,
    "facebook/m2m100_418M": 484e6,
    "facebook/mbart-large-50-many-to-many-mmt": 611e6,
    "google/pegasus-xsum": 569e6,
    "facebook/blenderbot-400M-distill": 365e6,
    "answerdotai/ModernBERT-base": 149e6,
    "microsoft/deberta-v3-base": 184e6,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_an_official_folder_runs_without_a_word(name: str) -> None:
    values, others, headed = FOLDERS[name]
    config = Config(values)
    family, spec = find_family(config.model_type), spec_of(values)
    find_family(config.model_type).spec(config)
    config.refuse_unread()
    parse_generation({}, spec.vocab, values, answers=spec.kind == "encoder-decoder")
    table, stored = family.tensors(spec), dict[str, StoredTensor]()
    for parameter, shape in parameters(spec).items():
        source = table.sources[parameter]
        if not headed and parameter.startswith("head."):
            continue
        size = math.prod(shape)
        if source.take and source.name in stored:
            size += math.prod(stored[source.name].shape)
        found = (size // shape[-1], shape[-1]) if len(shape) > 1 else (1, *shape) if source.take else shape
        stored[source.name] = StoredTensor(Path("x"), "F32", found, 0, 4 * size)
    embedding = stored[table.sources["embedding.weight"].name]
    for other in others:
        stored.setdefault(other, embedding)
    settled = settle_head(family, spec, stored)
    assert (settled.head is not None) == headed
    match_tensors(family.tensors(settled), settled, stored)
    if name in SIZES:
        counted = settled
        if settled.head is not None and values.get("tie_word_embeddings") is not False:  # a stored copy of the embeddings
            counted = replace(settled, head=replace(settled.head, tied=True))
        assert parameter_count(counted) == pytest.approx(SIZES[name], rel=0.02)
