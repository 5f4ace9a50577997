"""Write the golden checkpoints: tiny models of each family with random weights, and what transformers computes and writes with them.

Development only: `python -m tests.golden.make [NAME]...` needs transformers 5, which the tests do not. Running it twice writes the same
bytes.
"""

# transformers is hardly typed, and need not be installed where the types are checked.
# mypy: ignore-errors

from __future__ import annotations

import json
import shutil
import string
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from tests.golden.clear import is_clear
from tests.golden.mixtures import MIXTURES
from tests.golden.recurrent import RECURRENT
from tests.golden.wanted import CONTEXT, GOLDENS, START, VOCAB, Golden
from tests.golden.wanted_encoders import MORE
from tgen.train.vocabulary import learn_tokenizer, save_tokenizer

HERE = Path(__file__).parent
LENGTH, SOURCE, PROMPTS, SOURCES, NEW = 16, 9, (2, 4, 7), (6, 3, 8), 12
FIRST = 8  # ids below have a meaning: start, end, padding
SENTENCES = [
    "Once upon a time there was a little model that could tell stories.",
    "The cat sat on the mat, and the dog looked at the cat.",
    "Il était une fois une petite fille; she said: “I can see 2 birds!”",
]
MASKED = (
    "bert",
    "roberta",
    "distilbert",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "electra",
    "albert",
    "mpnet",
    "modernbert",
    "deberta-v2",
)
ANSWERING = ("t5", "bart", "marian", "mt5", "umt5", "mbart", "pegasus", "m2m_100", "blenderbot", "blenderbot-small", "longt5")
HEADS = dict.fromkeys(MASKED, AutoModelForMaskedLM) | dict.fromkeys(ANSWERING, AutoModelForSeq2SeqLM)
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
# The goldens that also hold what transformers writes with them: the first ones with many settings, the others with few.
WRITERS = ("llama2", "t5", "t5_flan", "bart", "bart_scaled", "marian")
CONTINUING = ("falcon_h1", "nemotron_h", "hunyuan_v1_moe", "gemma3n_text", "gemma4", "gemma4_text", "rwkv")
ALL = {**GOLDENS, **MORE, **MIXTURES, **RECURRENT}
SHORT_WRITERS = tuple(name for name, one in ALL.items() if (name in MORE and one.model_type in ANSWERING) or one.model_type in CONTINUING)


def main() -> None:
    """Write every folder anew, or those whose names are given."""
    torch.set_num_threads(1)
    for name, golden in ALL.items():
        number = seed_of(name)
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        models = (make_model(golden, seed=number + 1000 * attempt) for attempt in range(1000))
        model = next(model for model in models if is_clear(model, partial(reference, seed=number), LENGTH))
        expected = reference(model, seed=number)
        written = write(model, seed=number, short=name in SHORT_WRITERS) if name in (*WRITERS, *SHORT_WRITERS) else None
        if golden.model_type == "rwkv":  # a run has made some of its matrices smaller
            model.train().rwkv._rescale_layers()
        model.to(getattr(torch, golden.dtype)).save_pretrained(folder, max_shard_size="24KB" if golden.layout == "sharded" else "1GB")
        save_tokenizer(folder, make_tokenizer(golden), CONTEXT)
        rewrite_weights(folder, golden)
        if golden.dialect == 4:
            rewrite_config(folder / "config.json", golden.config)
        np.savez_compressed(folder / "golden.npz", **expected, **rounded(folder, golden, expected))
        if written is not None:
            (folder / "written.json").write_text(json.dumps(written) + "\n")
        name_version(folder / "config.json")
        for path in folder.iterdir():
            path.chmod(0o644)


def seed_of(name: str) -> int:
    """The seed of a golden's random numbers: its own, or its place in its list."""
    seed = ALL[name].seed
    if seed is not None:
        return seed
    first, names = next((first, list(group)) for first, group in ((0, GOLDENS | MORE), (200, MIXTURES), (300, RECURRENT)) if name in group)
    return first + names.index(name)


def make_tokenizer(golden: Golden) -> Tokenizer:
    """Bytes and the commonest pairs of them, with a mask where the family fills masks; for a small vocabulary, printable ASCII alone."""
    masked, size = golden.model_type in MASKED, inner_settings(golden)["vocab_size"]
    if size < VOCAB:
        return ascii_tokenizer(size, masked=masked)
    tokenizer = learn_tokenizer(SENTENCES * 2, VOCAB - masked)
    if masked:
        tokenizer.add_special_tokens(["[MASK]" if golden.model_type == "bert" else "<mask>"])
    return tokenizer


def ascii_tokenizer(size: int, *, masked: bool) -> Tokenizer:
    """An end token and the 95 printable characters of ASCII; as many as fit, letters first. The last one is the mask if there is one."""
    space = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"  # how byte-level tokenizers write it
    characters = [space, *map(chr, range(ord("!"), ord("~") + 1))]
    if size <= len(characters):
        characters = [space, *string.ascii_lowercase, *string.punctuation][: size - 1 - masked]
    tokenizer = Tokenizer(models.BPE({"<|end|>": 0, **{one: number for number, one in enumerate(characters, start=1)}}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<mask>"] if masked else ["<|end|>"])
    return tokenizer


def inner_settings(golden: Golden) -> dict[str, Any]:
    """The settings of the text model."""
    return golden.config.get("text_config", golden.config)


def auto_class(golden: Golden) -> Any:
    """What transformers opens such a folder with."""
    if "text_config" in golden.config:
        return AutoModelForImageTextToText
    return AutoModel if golden.layout == "headless" else HEADS.get(golden.model_type, AutoModelForCausalLM)


def make_model(golden: Golden, seed: int) -> PreTrainedModel:
    """A model whose every parameter is random: with fresh biases and norms, a loader that drops them would pass."""
    config = AutoConfig.for_model(golden.model_type, **golden.config)
    model = auto_class(golden).from_config(config, **EAGER)
    if golden.config.get("tie_word_embeddings") is False and golden.model_type in ("t5", "umt5", "longt5"):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())  # transformers ties them whatever it is asked
    model.generation_config = GenerationConfig(**{key: inner_settings(golden).get(key) for key in ("bos_token_id", *START)})
    generator = torch.Generator().manual_seed(seed)
    biases = [
        (name, buffer)
        for name, buffer in model.named_buffers()
        if name.endswith(("final_logits_bias", "correction_bias", "expert_bias", "layer_scalar"))
    ]
    for name, parameter in [*sorted(model.named_parameters()), *biases]:
        if golden.model_type in ("marian", "pegasus") and "embed_positions" in name:
            continue  # sines and cosines
        is_factor = name.endswith(("layer_scalar", "router.scale", "per_expert_scale"))
        is_scale = name.endswith("weight") and (parameter.ndim == 1 or "norm" in name)
        adds = golden.model_type.startswith(("gemma", "nemotron", "qwen3_next", "qwen3_5"))  # the 1, themselves
        is_scale = is_scale and (not adds or golden.model_type.startswith(("gemma3n", "gemma4")))
        # With larger ones, BART's norms leave little but what attention adds to every position alike.
        spread = 0.2 if golden.model_type in ("bart", "marian") and ("self_attn.v" in name or "self_attn.out" in name) else 0.4
        spread = 0.1 if "correction" in name or "expert_bias" in name else spread  # with larger ones, some experts would never be chosen
        values = spread * torch.randn(parameter.shape, generator=generator) + (1.0 if is_scale or is_factor else 0.0)
        if "q_norm" in name and golden.model_type.startswith(("gemma3n", "gemma4")):
            values /= 2  # their scores are not divided by the root of a head's width, and larger ones would magnify roundings
        # Rounded as it will be stored; the model itself stays in float32, for its rotations would be rounded with it.
        parameter.data = values.to(getattr(torch, golden.dtype)).float()
    return model.eval()


@torch.no_grad()
def reference(model: PreTrainedModel, seed: int) -> dict[str, np.ndarray]:
    """Ids [n], logits [n, vocab] and attention maps [layers, heads, n, m]; the same without maps for a padded batch.

    The batch has ids and positions [rows, m], padded on the left, where positions are -1, and logits of all that is no padding. A model
    without a head has hidden states in place of logits; an encoder-decoder has sources as well.
    """
    random = np.random.default_rng(seed)
    vocab = model.config.get_text_config().vocab_size
    ids = random.integers(FIRST, vocab, size=LENGTH)
    batch, positions = padded(random, PROMPTS, vocab)
    single, several = {"ids": ids}, {"batch_ids": batch, "batch_positions": positions}
    if model.config.is_encoder_decoder:
        single["source"] = random.integers(FIRST, vocab, size=SOURCE)
        several["batch_source"], several["batch_source_positions"] = padded(random, SOURCES, vocab)
    kinds = ("encoder", "decoder", "cross") if model.config.is_encoder_decoder else ("",)
    output = run(model, *(torch.from_numpy(one)[None] for one in single.values()), output_attentions=True)
    found = {kind: output.get(f"{kind}_attentions".lstrip("_")) for kind in kinds}
    maps = {kind: np.concatenate([unblocked(model, one) for one in weights]) for kind, weights in found.items() if is_maps(weights)}
    reads = model.config.model_type in MASKED or getattr(model.config, "use_bidirectional_attention", False)
    own = "encoder" if reads else "decoder"
    return {
        **single,
        "logits": result(output)[0],
        **{f"{kind or own}_maps": weights for kind, weights in maps.items()},
        **several,
        "batch_logits": batch_logits(model, *several.values()),
    }


def is_maps(weights: tuple[torch.Tensor, ...] | None) -> bool:
    """Whether these are attention maps: RWKV gives vectors under that name."""
    return bool(weights) and weights[0].ndim > 3


def unblocked(model: PreTrainedModel, weights: torch.Tensor) -> np.ndarray:
    """A layer's attention map [1, heads, n, m]. LongT5 gives its encoder's by blocks: each with its neighbours and all sums."""
    if weights.ndim == 4:
        return weights.float().numpy()
    size = model.config.local_radius + 1
    _, blocks, heads, _, columns = weights.shape
    whole = torch.zeros(1, heads, SOURCE, (blocks + 2) * size + columns - 3 * size)
    for query in range(SOURCE):
        block, row = divmod(query, size)
        whole[:, :, query, block * size : (block + 3) * size] = weights[:, block, :, row, : 3 * size]
        whole[:, :, query, (blocks + 2) * size :] = weights[:, block, :, row, 3 * size :]
    return np.concatenate((whole[..., size : size + SOURCE], whole[..., (blocks + 2) * size :]), axis=-1)


def padded(random: np.random.Generator, lengths: tuple[int, ...], vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids of these lengths, padded on the left, and their positions."""
    longest = max(lengths)
    positions = np.stack([np.arange(longest) - (longest - length) for length in lengths]).clip(min=-1)
    return random.integers(FIRST, vocab, size=positions.shape), positions


def run(
    model: PreTrainedModel, ids: torch.Tensor, source: torch.Tensor | None = None, mask: torch.Tensor | None = None, **asked: bool
) -> Any:
    """A forward pass; the mask is that of the source, or of the ids where there is none."""
    if source is None:
        return model(ids, attention_mask=mask, **asked)
    return model(input_ids=source, attention_mask=mask, decoder_input_ids=ids, **asked)


def result(output: Any) -> np.ndarray:
    """Logits, or hidden states of a model without a head."""
    return (output.logits if "logits" in output else output.last_hidden_state).float().numpy()


@torch.no_grad()
def rounded(folder: Path, golden: Golden, expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The logits of a reference's texts once more, computed in bfloat16 from the written folder, and as its bits: uint16."""
    model = auto_class(golden).from_pretrained(folder, dtype=torch.bfloat16, **EAGER)
    single = [torch.from_numpy(expected[key])[None] for key in ("ids", "source") if key in expected]
    several = [expected[f"batch_{key}"] for key in ("ids", "positions", "source", "source_positions") if f"batch_{key}" in expected]
    logits = {"logits": result(run(model, *single))[0], "batch_logits": batch_logits(model, *several)}
    return {f"bfloat16_{key}": torch.from_numpy(array).bfloat16().view(torch.uint16).numpy() for key, array in logits.items()}


@torch.no_grad()
def batch_logits(
    model: PreTrainedModel,
    ids: np.ndarray,
    positions: np.ndarray,
    source: np.ndarray | None = None,
    source_positions: np.ndarray | None = None,
) -> np.ndarray:
    """What transformers gives for a padded batch. It is given the padding on the right: then it finds the positions by itself."""
    moved = [torch.from_numpy(on_the_right(model, ids, positions))]
    mask = on_the_right(model, positions, positions) >= 0
    seen = mask if source_positions is None else on_the_right(model, source_positions, source_positions) >= 0
    if source is not None:
        moved.append(torch.from_numpy(on_the_right(model, source, source_positions)))
    return result(run(model, *moved, mask=torch.from_numpy(seen).long()))[mask]


def on_the_right(model: PreTrainedModel, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The rows with their padding moved from the left to the right; it becomes the model's own, or -1 among positions."""
    padding = -1 if values is positions else model.config.get_text_config().pad_token_id or 0
    rows = [np.roll(np.where(places < 0, padding, row), -int((places < 0).sum())) for row, places in zip(values, positions, strict=True)]
    return np.stack(rows)


@torch.no_grad()
def write(model: PreTrainedModel, seed: int, *, short: bool) -> list[dict[str, Any]]:
    """Prompts or sources, one at a time, and the ids that transformers writes to each, for settings that all show."""
    random = np.random.default_rng(seed)
    prompts = [random.integers(FIRST, model.config.get_text_config().vocab_size, size=length).tolist() for length in SOURCES]
    if short and not model.config.is_encoder_decoder:
        greedy = [{"num_beams": 1, "min_new_tokens": NEW}, {"num_beams": 1, "no_repeat_ngram_size": 1}]
        return [{"settings": one, "prompts": prompts, "answers": [answer(model, prompt, one) for prompt in prompts]} for one in greedy]
    if short:
        few: list[dict[str, Any]] = [{"num_beams": 1, "no_repeat_ngram_size": 1}, {"num_beams": 4}]
        few.append({"num_beams": 4, "no_repeat_ngram_size": 1, "forced_bos_token_id": 5})
        few.append({"num_beams": 4, "no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1})
        # M2M-100 gives what follows a padding token other positions.
        few = [{**one, "suppress_tokens": [model.config.pad_token_id]} for one in few]
        return [{"settings": one, "prompts": prompts, "answers": [answer(model, prompt, one) for prompt in prompts]} for one in few]
    plain = [answer(model, prompt, {"num_beams": 4}) for prompt in prompts]
    ends = random.choice(np.arange(FIRST, VOCAB), size=40, replace=False).tolist()
    # Each token once: such models would else write one word again and again.
    ending = {"num_beams": 4, "eos_token_id": ends, "no_repeat_ngram_size": 1}
    settings = [
        {"num_beams": 1},
        {"num_beams": 1, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "eos_token_id": ends},
        {"num_beams": 4},
        ending,
        *({**ending, "length_penalty": penalty, "early_stopping": early} for penalty in (0.6, 1.0, 2.0) for early in (True, "never")),
        {**ending, "length_penalty": 0.6},
        {**ending, "min_length": 7},
        {**ending, "num_beams": 3, "min_new_tokens": 9, "forced_eos_token_id": 2},
        {"num_beams": 4, "repetition_penalty": 1.7},
        {"num_beams": 4, "no_repeat_ngram_size": 2, "forced_bos_token_id": 5},
        # What it would have written.
        {"num_beams": 4, "bad_words_ids": [*([ids[1]] for ids in plain), *(ids[4:6] for ids in plain)]},
        {"num_beams": 4, "suppress_tokens": sorted({ids[2] for ids in plain}), "begin_suppress_tokens": sorted({ids[0] for ids in plain})},
    ]
    return [{"settings": one, "prompts": prompts, "answers": [answer(model, prompt, one) for prompt in prompts]} for one in settings]


def answer(model: PreTrainedModel, prompt: list[int], settings: dict[str, Any]) -> list[int]:
    """The ids that transformers writes."""
    # With its cache, transformers leaves out the least step of Nemotron-H.
    cached = model.config.model_type != "nemotron_h"
    written = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, use_cache=cached, **settings)[0].tolist()
    return written[1 if model.config.is_encoder_decoder else len(prompt) :]


Tensors = dict[str, torch.Tensor]


def bare(tensors: Tensors) -> Tensors:
    """Names without the family's prefix, masks stored: the first GPT-2."""
    masks = {f"h.{i}.attn.bias": torch.ones(CONTEXT, CONTEXT, dtype=torch.uint8).tril()[None, None] for i in range(2)}
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()} | masks


def masks(tensors: Tensors) -> Tensors:
    """Masks and frequencies stored: the first Pythia."""
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention"
        tensors |= {f"{prefix}.masked_bias": torch.tensor(-1e9), f"{prefix}.rotary_emb.inv_freq": torch.ones(2)}
        tensors |= {f"{prefix}.bias": torch.ones(1, 1, CONTEXT, CONTEXT, dtype=torch.bool).tril()}
    return tensors


def copies(tensors: Tensors) -> Tensors:
    """The embedding once for each of its uses, and Marian's sines: what a `.bin` of an encoder-decoder holds."""
    start = "" if "shared.weight" in tensors else "model."
    names = ["lm_head.weight", *(f"{start}{stack}.embed_tokens.weight" for stack in ("encoder", "decoder"))]
    tensors |= dict.fromkeys(names, tensors[f"{start}shared.weight"])
    if "model.encoder.embed_positions.weight" not in tensors and start:
        sines = MarianSinusoidalPositionalEmbedding(CONTEXT, tensors["model.shared.weight"].shape[1]).create_weight()
        tensors |= {f"model.{stack}.embed_positions.weight": sines for stack in ("encoder", "decoder")}
    return tensors


def tensorflow(tensors: Tensors) -> Tensors:
    """TensorFlow's names for norms, and what else the first BERT was trained with."""
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in tensors.items()
    }
    pooler = {"bert.pooler.dense.weight": torch.ones(16, 16), "bert.pooler.dense.bias": torch.ones(16)}
    pair = {"cls.seq_relationship.weight": torch.ones(2, 16), "cls.seq_relationship.bias": torch.ones(2)}
    return {**old, **pooler, **pair, "bert.embeddings.position_ids": torch.arange(CONTEXT)[None]}


def inside(tensors: Tensors) -> Tensors:
    """The names that the parts of a model with images have in memory, which some programs write."""
    beginnings = {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head.", "": "model."}

    def inner(name: str) -> str:
        before, after = next(pair for pair in beginnings.items() if name.startswith(pair[0]))
        return after + name.removeprefix(before)

    return {inner(name): tensor for name, tensor in tensors.items()}


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {one.__name__: one for one in (bare, masks, copies, tensorflow, inside)}


def rewrite_weights(folder: Path, golden: Golden) -> None:
    """The same tensors as older folders hold them."""
    if golden.layout not in (*LAYOUTS, "bin"):
        return
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if golden.layout in LAYOUTS:
        tensors = LAYOUTS[golden.layout](tensors)
    if golden.layout in ("bin", "copies"):
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")


def name_version(path: Path) -> None:
    """Name the version that this process runs: the config.json of some families names an older one."""
    config = {**json.loads(path.read_text("utf-8")), "transformers_version": transformers.__version__}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def rewrite_config(path: Path, asked: dict[str, Any]) -> None:
    """Turn what transformers 5 writes into the dialect of transformers 4; what it drops because it is switched off stays."""
    config = {**json.loads(path.read_text("utf-8")), **asked}
    rope = config.pop("rope_parameters", {})
    kind = rope.pop("rope_type", "default")
    if "rope_theta" in rope and "rotary_emb_base" not in asked:
        config["rope_theta"] = rope.pop("rope_theta")
    if kind != "default":
        config["rope_scaling"] = {"rope_type": kind, **rope}
    config.pop("layer_types", None)
    config.pop("scale_decoder_outputs", None)
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
