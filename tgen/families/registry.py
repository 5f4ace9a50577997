"""Maps each `model_type` to the family module that reads it."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from tgen.families.config import Config
from tgen.families.table import Table
from tgen.spec.records import ModelSpec


class Family(Protocol):
    """The functions of a family module."""

    def spec(self, config: Config) -> ModelSpec: ...
    def tensors(self, spec: ModelSpec) -> Table: ...


# Module names: a run needs one family, and importing all would take a tenth of a short run.
FAMILIES = {
    "albert": "albert",
    "apertus": "apertus",
    "arcee": "llama",
    "bart": "bart",
    "bert": "bert",
    "blenderbot": "bart",
    "blenderbot-small": "bart",
    "bloom": "bloom",
    "camembert": "bert",
    "codegen": "gptj",
    "cohere": "cohere",
    "cohere2": "cohere",
    "deberta-v2": "deberta",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "distilbert": "distilbert",
    "dots1": "mixture",
    "electra": "bert",
    "ernie4_5": "llama",
    "ernie4_5_moe": "mixture",
    "exaone": "exaone",
    "exaone4": "olmo",
    "falcon": "falcon",
    "falcon_h1": "falcon_h1",
    "falcon_mamba": "mamba",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "wrapper",
    "gemma3_text": "gemma",
    "gemma3n": "wrapper",
    "gemma3n_text": "gemma3n",
    "gemma4": "wrapper",
    "gemma4_text": "gemma4",
    "gemma4_unified": "wrapper",
    "gemma4_unified_text": "gemma4",
    "glm": "glm",
    "glm4": "glm",
    "glm4_moe": "mixture",
    "gpt2": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "granite": "llama",
    "granitemoe": "mixture",
    "granitemoehybrid": "granite_hybrid",
    "granitemoeshared": "mixture",
    "hunyuan_v1_dense": "llama",
    "hunyuan_v1_moe": "hunyuan",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "llama": "llama",
    "longt5": "t5",
    "m2m_100": "bart",
    "mamba": "mamba",
    "mamba2": "mamba",
    "marian": "bart",
    "mbart": "bart",
    "minicpm3": "deepseek",
    "ministral3": "llama",
    "mistral": "llama",
    "mistral3": "wrapper",
    "mixtral": "mixture",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "mpt": "mpt",
    "mt5": "t5",
    "nanochat": "apertus",
    "nemotron": "starcoder2",
    "nemotron_h": "nemotron_h",
    "olmo": "olmo",
    "olmo2": "olmo",
    "olmo3": "olmo",
    "olmoe": "mixture",
    "opt": "opt",
    "pegasus": "bart",
    "phi": "phi",
    "phi3": "phi3",
    "phimoe": "mixture",
    "qwen2": "llama",
    "qwen2_5_vl": "wrapper",
    "qwen2_moe": "mixture",
    "qwen2_vl": "wrapper",
    "qwen3": "llama",
    "qwen3_5": "wrapper",
    "qwen3_5_moe": "wrapper",
    "qwen3_5_moe_text": "qwen_linear",
    "qwen3_5_text": "qwen_linear",
    "qwen3_moe": "mixture",
    "qwen3_next": "qwen_linear",
    "qwen3_vl": "wrapper",
    "roberta": "bert",
    "rwkv": "rwkv",
    "seed_oss": "llama",
    "smollm3": "llama",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "t5": "t5",
    "umt5": "t5",
    "xlm-roberta": "bert",
    "xlm-roberta-xl": "bert",
}


def find_family(model_type: str) -> Family:
    """The module for a `model_type` of the registry."""
    return cast(Family, import_module(f"tgen.families.{FAMILIES[model_type]}"))
