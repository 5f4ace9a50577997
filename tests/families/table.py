"""The table of models in docs/models.md, from the registry and the goldens. Run as a program, it writes that page.

The models that people know are listed here by hand. All else follows from the code and from the golden checkpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.conftest import GOLDENS, config_of, spec_of
from tgen.checkpoint.gguf.architectures import ARCHITECTURES
from tgen.executors.native.open import supports
from tgen.families.registry import FAMILIES
from tgen.families.wrapper import INNER, TEXT
from tgen.spec.records import ExpertsSpec

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
# Architectures of GGUF whose metadata may describe models of other types, too.
MORE_GGUF = {"mistral": "llama", "mixtral": "llama", "olmo3": "olmo2", "umt5": "t5"}
INTRODUCTION = """\
# Models

`python -m tests.families.table` writes this page. A test fails if the page differs from what that command writes.

- **type** is the `model_type` in config.json, **code** the file in `tgen/families` that reads it.
- **known models** are those that many people run, with their sizes in parameters. Any other folder of that type runs as well, unless it
  asks for a variant that tgen does not implement. The error then names that variant.
- **GGUF** is the architecture that a GGUF file of such a model names. A dash means that tgen reads such models only from Hugging Face
  folders. All folders may hold safetensors or `pytorch_model.bin`, whole or in parts, and the
  [quantised formats](../README.md#smaller-weights).
- **executor** is what runs the model on a CPU: tgen's native library, or torch, with the reason.
- **compared with** is the version of transformers with which tests compare tgen, on small checkpoints with random weights. The logits in
  float32 are equal to 1e-5: in full, step by step, in padded batches and with attention maps. Encoder-decoders also write the same ids with
  beams.
"""
HEADINGS = {
    "decoder-only": "Decoder-only",
    "mixture": "Mixtures of experts",
    "recurrent": "With states in place of keys and values",
    "wrapper": "The text model of models that see images",
    "encoder-decoder": "Encoder-decoder",
    "encoder-only": "Encoder-only",
}
KNOWN = {
    "albert": "ALBERT base 12M to xxlarge 223M",
    "apertus": "Apertus 8B, 70B",
    "arcee": "AFM 4.5B",
    "bart": "BART base 139M, large 406M; DistilBART",
    "bert": "BERT 110M, 340M; MiniLM, BGE, E5, GTE, SciBERT",
    "blenderbot": "Blenderbot 400M, 3B",
    "blenderbot-small": "BlenderBot 90M",
    "bloom": "BLOOM and BLOOMZ 560M to 176B",
    "camembert": "CamemBERT 110M",
    "codegen": "CodeGen 350M to 16B",
    "cohere": "Command R 35B; Aya Expanse 8B, 32B",
    "cohere2": "Command R7B; Command A 111B",
    "deberta-v2": "DeBERTa v3 small to large (44M to 435M), v2 xlarge 900M",
    "deepseek_v2": "DeepSeek-V2-Lite 16B, DeepSeek-Coder-V2 16B, 236B",
    "deepseek_v3": "DeepSeek-V3 and R1 671B, Moonlight 16B",
    "distilbert": "DistilBERT 67M",
    "dots1": "dots.llm1 142B",
    "electra": "ELECTRA small 14M to large 335M",
    "ernie4_5": "ERNIE 4.5 0.3B",
    "ernie4_5_moe": "ERNIE 4.5 21B-A3B, 300B-A47B",
    "exaone": "EXAONE 3.0 7.8B, 3.5 2.4B to 32B, Deep 2.4B to 32B",
    "exaone4": "EXAONE 4.0 1.2B, 32B",
    "falcon": "Falcon 7B, 40B, 180B",
    "falcon_h1": "Falcon-H1 0.5B to 34B",
    "falcon_mamba": "Falcon Mamba 7B",
    "gemma": "Gemma 2B, 7B; CodeGemma",
    "gemma2": "Gemma 2 2B, 9B, 27B",
    "gemma3": "Gemma 3 4B, 12B, 27B; MedGemma",
    "gemma3_text": "Gemma 3 270M, 1B; EmbeddingGemma 300M",
    "gemma3n": "Gemma 3n E2B, E4B",
    "gemma3n_text": "the text model of Gemma 3n alone",
    "gemma4": "Gemma 4 E2B, E4B, 26B-A4B, 31B",
    "gemma4_text": "the text model of Gemma 4 alone",
    "gemma4_unified_text": "the text model of Gemma 4 12B alone",
    "gemma4_unified": "Gemma 4 12B",
    "glm": "GLM-4 9B, GLM-Edge 1.5B, 4B",
    "glm4": "GLM-4-0414 9B, 32B",
    "glm4_moe": "GLM-4.5-Air 106B, GLM-4.5 and 4.6 355B",
    "gpt2": "GPT-2 124M to 1.5B; DistilGPT-2, DialoGPT",
    "gpt_neo": "GPT-Neo 125M to 2.7B; TinyStories 1M to 33M",
    "gpt_neox": "Pythia 14M to 12B; GPT-NeoX 20B, Dolly",
    "gpt_oss": "GPT-OSS 20B, 120B",
    "gptj": "GPT-J 6B",
    "granite": "Granite 3.0 to 3.3 2B, 8B",
    "granitemoe": "Granite 3 1B-A400M, 3B-A800M",
    "granitemoehybrid": "Granite 4.0 350M to 32B",
    "granitemoeshared": "IBM's 7B mixture with shared experts",
    "hunyuan_v1_dense": "Hunyuan 0.5B to 7B",
    "hunyuan_v1_moe": "Hunyuan A13B",
    "lfm2": "LFM2 and LFM2.5 350M to 2.6B",
    "lfm2_moe": "LFM2 8B-A1B",
    "llama": "Llama 1 to 3.3, 1B to 405B; SmolLM2, TinyLlama, Yi, Vicuna, Falcon 3, DeepSeek-R1-Distill",
    "longt5": "LongT5 base 248M to xl 3B",
    "m2m_100": "M2M-100 418M, 1.2B; NLLB-200 600M to 3.3B",
    "mamba": "Mamba 130M to 2.8B",
    "mamba2": "Mamba 2 130M to 2.7B, Codestral Mamba 7B",
    "marian": "OPUS-MT, about 75M for each pair of languages",
    "mbart": "mBART and mBART-50 611M",
    "minicpm3": "MiniCPM3 4B",
    "ministral3": "Ministral 3 3B, 8B, 14B",
    "mistral": "Mistral 7B, Nemo 12B, Ministral 8B, Small 24B; Zephyr",
    "mistral3": "Mistral Small 3.1 and 3.2 24B; Ministral 3",
    "mixtral": "Mixtral 8x7B, 8x22B",
    "modernbert": "ModernBERT base 149M, large 395M; gte-modernbert",
    "mpnet": "MPNet 109M: all-mpnet-base-v2, multi-qa-mpnet",
    "mpt": "MPT 7B, 30B",
    "mt5": "mT5 small 300M to xxl 13B",
    "nanochat": "nanochat 561M",
    "nemotron": "Nemotron-Mini 4B, Minitron 4B, 8B",
    "nemotron_h": "Nemotron Nano v2 9B, 12B; Nemotron 3 Nano 30B-A3B",
    "olmo": "OLMo 1B, 7B",
    "olmo2": "OLMo 2 1B, 7B, 13B, 32B",
    "olmo3": "Olmo 3 7B, 32B",
    "olmoe": "OLMoE 1B-7B",
    "opt": "OPT 125M to 66B; Galactica",
    "pegasus": "PEGASUS 568M: xsum, cnn_dailymail, paraphrase",
    "phi": "Phi-1, 1.5 1.3B, Phi-2 2.7B",
    "phi3": "Phi-3 and 3.5 mini 3.8B, medium 14B; Phi-4 14B, Phi-4-mini 3.8B",
    "phimoe": "Phi-3.5-MoE 42B, Phi-mini-MoE 7.6B",
    "qwen2": "Qwen 1.5, 2 and 2.5 0.5B to 72B; DeepSeek-R1-Distill, QwQ",
    "qwen2_5_vl": "Qwen2.5-VL 3B to 72B",
    "qwen2_moe": "Qwen1.5-MoE-A2.7B, Qwen2 57B-A14B",
    "qwen2_vl": "Qwen2-VL 2B, 7B, 72B",
    "qwen3": "Qwen3 0.6B to 32B; Qwen3-Embedding, DeepSeek-R1-0528-Qwen3-8B",
    "qwen3_5": "Qwen3.5 and 3.6 0.8B to 27B",
    "qwen3_5_moe": "Qwen3.5 and 3.6 35B-A3B, 122B-A10B, 397B-A17B",
    "qwen3_5_moe_text": "the mixtures of Qwen3.5, saved without the part for images",
    "qwen3_5_text": "Qwen3.5, saved without the part for images",
    "qwen3_moe": "Qwen3 30B-A3B, 235B-A22B; Qwen3-Coder",
    "qwen3_next": "Qwen3-Next 80B-A3B, Qwen3-Coder-Next",
    "qwen3_vl": "Qwen3-VL 2B to 32B",
    "roberta": "RoBERTa 125M, 355M; CodeBERT, DistilRoBERTa",
    "rwkv": "RWKV-4 169M to 14B",
    "seed_oss": "Seed-OSS 36B",
    "smollm3": "SmolLM3 3B",
    "stablelm": "StableLM 2 1.6B; StableLM 3B, Zephyr 3B",
    "starcoder2": "StarCoder2 3B, 7B, 15B",
    "t5": "T5, T5 v1.1, FLAN-T5 60M to 11B; ByT5, MADLAD-400",
    "umt5": "UMT5 small to xxl",
    "xlm-roberta": "XLM-RoBERTa 278M, 560M; BGE-M3, multilingual-e5",
    "xlm-roberta-xl": "XLM-RoBERTa XL 3.5B",
}


def page() -> str:
    """The whole page."""
    goldens = _goldens()
    rows: dict[str, list[str]] = {heading: [] for heading in HEADINGS}
    for model_type in sorted(FAMILIES):
        configs = goldens[model_type]
        rows[_heading(model_type, configs)].append(_row(model_type, configs))
    parts = [INTRODUCTION]
    for heading, lines in rows.items():
        head = ["| type | code | known models | GGUF | executor | compared with |", "|---|---|---|---|---|---|"]
        parts.append(f"## {HEADINGS[heading]}\n\n" + "\n".join([*head, *lines]) + "\n")
    return "\n".join(parts)


def _goldens() -> dict[str, list[dict[str, Any]]]:
    """The config.json of the goldens of each type, and of its other names.

    One of a wrapper is one of the text model inside, too, and the other way round.
    """
    found = defaultdict(list)
    for config in map(config_of, GOLDENS):
        for model_type in dict.fromkeys((config["model_type"], config.get("text_config", {}).get("model_type"))):
            found[model_type].append(config)
    for model_type, code in FAMILIES.items():
        if not found[model_type] and model_type not in TEXT:  # another name of a type that the same file reads
            found[model_type] = [config for other, configs in found.items() if FAMILIES.get(other) == code for config in configs]
    for model_type, settings in TEXT.items():
        found[model_type] = found[model_type] or found[settings["model_type"]]
    return found


def _heading(model_type: str, configs: list[dict[str, Any]]) -> str:
    if model_type in TEXT:
        return "wrapper"
    specs = [spec_of(config) for config in configs]
    if any(stack.recurrent for spec in specs for stack in spec.stacks.values()):
        return "recurrent"
    if any(isinstance(layer.feed_forward, ExpertsSpec) for spec in specs for stack in spec.stacks.values() for layer in stack.layers):
        return "mixture"
    return min((spec.kind for spec in specs), key=list(HEADINGS).index)


def _row(model_type: str, configs: list[dict[str, Any]]) -> str:
    inner = TEXT[model_type]["model_type"] if model_type in TEXT else model_type
    code = INNER[inner].__name__.rpartition(".")[2] if model_type in TEXT else FAMILIES[model_type]
    gguf = next((name for name, one in ARCHITECTURES.items() if one.model_type == inner), MORE_GGUF.get(inner))
    versions = _listed(config["transformers_version"] for config in configs)
    cells = [f"`{model_type}`", f"`{code}.py`", KNOWN[model_type], f"`{gguf}`" if gguf else "-", _executor(configs), versions]
    return f"| {' | '.join(cells)} |"


def _executor(configs: list[dict[str, Any]]) -> str:
    reasons = [supports(spec_of(config)) for config in configs]
    problem = next((reason for reason in reasons if reason is not None), None)
    if problem is None:
        return "native"
    return f"torch: {problem}" if None not in reasons else f"native; torch where {problem}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
