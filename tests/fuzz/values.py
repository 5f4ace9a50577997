"""Hostile JSON: values where others are meant, and texts that are hardly JSON. In config.json, generation_config.json, everywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutation import edit_json, json_files, keys_of_config, mutation

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    2**31 - 1,
    2**31,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(10**30),
    10**4000,
    0.0,
    -0.0,
    0.5,
    1.5,
    -2.5,
    1e-320,
    1e-30,
    1e30,
    1.7e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "0",
    "1",
    "7",
    "nan",
    "x" * 10_000,
    "\x1b]0;owned\x07",
    "\ud800",
    "a\nb",
    "../../x",
    "\0",
    [],
    [1],
    [0, 0],
    [None],
    [1] * 100_000,
    [[]],
    ["x"],
    {},
    {"a": 1},
    {"": {}},
    [{"a": []}],
    [-1],
    [10**30],
    [math.nan],
    "gelu",
    "default",
    "linear",
    "llama3",
    "gpt2",
    "llama",
    "bert",
    "t5",
    "marian",
    ["full_attention"],
    ["sliding_attention"] * 2,
]
SIZES = (
    "n_embd hidden_size d_model n_head num_attention_heads n_layer num_hidden_layers vocab_size n_positions max_position_embeddings d_ff "
    "d_kv intermediate_size n_inner head_dim num_key_value_heads num_layers num_decoder_layers num_heads encoder_layers decoder_layers "
    "encoder_ffn_dim decoder_ffn_dim encoder_attention_heads relative_attention_num_buckets relative_attention_max_distance ffn_dim "
    "word_embed_proj_dim type_vocab_size pad_token_id sliding_window sliding_window_pattern query_pre_attn_scalar rope_theta"
).split()
KINDS_OF_ROTATION: list[Any] = ["default", "linear", "llama3", "dynamic", None, 7, []]
ROPES: list[Any] = [
    {"rope_type": kind, "factor": factor, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": context}
    for kind in KINDS_OF_ROTATION
    for factor in (1.0, 1e-300, 1e300, "2")
    for low, high in ((1.0, 4.0), (4.0, 1.0), (2.0, 2.0), (1e-300, 1e300))
    for context in (8, 2**31 - 1, 0)
]
GENERATION = (
    "bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id do_sample early_stopping eos_token_id forced_bos_token_id "
    "forced_eos_token_id length_penalty max_length max_new_tokens min_length min_new_tokens min_p no_repeat_ngram_size num_beams "
    "pad_token_id repetition_penalty suppress_tokens temperature top_k top_p guidance_scale constraints stop_strings seed samples"
).split()


@mutation("config")
def value(folder: Path, random: Random) -> None:
    """One key, or a few, with values that nobody would mean."""
    keys = random.sample(keys_of_config(folder), random.choice([1, 1, 1, 3]))
    edit_json(folder / "config.json", lambda config: config.update({key: random.choice(VALUES) for key in keys}))


@mutation("config")
def size(folder: Path, random: Random) -> None:
    """Sizes, larger and smaller than what is stored: nothing may be set aside before it was compared."""

    def change(config: dict[str, Any]) -> None:
        known = [key for key in SIZES if key in config]  # few, where another object holds those of the text model
        for key in random.sample(known, min(len(known), random.choice([1, 1, 2, 3]))):
            old = config[key] if isinstance(config[key], int) else 16
            config[key] = random.choice([old * 2, old // 2, old + 1, old - 1, 1, 2**16, 2**20, 2**30, 2**31 - 1, old * 1000, 1000])

    edit_json(folder / "config.json", change)


@mutation("config")
def rotation(folder: Path, random: Random) -> None:
    key = random.choice(["rope_scaling", "rope_parameters"])
    values = random.choice(ROPES)
    nested = random.choice([values, {"full_attention": values, "sliding_attention": values}, {"full_attention": 7}, random.choice(VALUES)])
    edit_json(folder / "config.json", lambda config: config.update({key: nested}))


@mutation("config")
def tiny_or_huge_number(folder: Path, random: Random) -> None:
    """Where the arithmetic overflows or divides by nothing, the step is to be named."""
    numbers = "layer_norm_epsilon rms_norm_eps layer_norm_eps rope_theta query_pre_attn_scalar attn_logit_softcapping rotary_pct"
    numbers += " final_logit_softcapping partial_rotary_factor layer_norm_epsilon rope_local_base_freq rotary_emb_base"

    def change(config: dict[str, Any]) -> None:
        for key in [key for key in numbers.split() if key in config]:
            config[key] = random.choice([1e-320, 1e-45, 1e-30, 1e30, 3.5e38, 1e300, 10**300, 1, 2])

    edit_json(folder / "config.json", change)


@mutation("config")
def key_gone_or_new(folder: Path, random: Random) -> None:
    def change(config: dict[str, Any]) -> None:
        for key in random.sample(list(config), 2):
            del config[key]
        new = [
            "",
            "x" * 5000,
            "\x1b]0;owned\x07",
            "a\nerror: b",
            "\ud800",
            "quantization_config",
            "head_dim",
            "sliding_window",
            "layer_types",
        ]
        for key in random.sample(new, random.choice([0, 1, 2])):
            config[key] = random.choice(VALUES)

    edit_json(folder / "config.json", change)


@mutation("config")
def another_family(folder: Path, random: Random) -> None:
    kinds = "bart bert bloom gemma2 gemma3_text gpt2 gpt_neox llama marian mistral opt phi phi3 qwen2 qwen3 roberta t5 LLAMA mamba".split()
    kinds += ["", "x" * 100_000, "llama\n", "\ud800"]
    edit_json(folder / "config.json", lambda config: config.update(model_type=random.choice(kinds)))


@mutation("generation")
def setting(folder: Path, random: Random) -> None:
    keys = random.sample(GENERATION, random.choice([1, 1, 2, 4]))
    ids: list[Any] = [0, 1, 2, 287, 288, 400, [0, 287], [[0]], [[]], [[288]], [list(range(288))], list(range(288)), [[0, 1], [2]], [True]]
    edit_json(folder / "generation_config.json", lambda values: values.update({key: random.choice(VALUES + 2 * ids) for key in keys}))


@mutation("generation")
def in_the_old_place(folder: Path, random: Random) -> None:
    """Folders from before generation_config.json keep the same keys in config.json."""
    (folder / "generation_config.json").unlink(missing_ok=True)
    keys = random.sample(GENERATION, random.choice([1, 2]))
    edit_json(folder / "config.json", lambda values: values.update({key: random.choice(VALUES) for key in keys}))


@mutation("generation")
def numbers_beyond_reason(folder: Path, random: Random) -> None:
    keys = "temperature top_k top_p min_p repetition_penalty num_beams max_length max_new_tokens min_length no_repeat_ngram_size".split()
    numbers = [1e-320, 1e-45, 1e300, 10**400, 2**31, 2**63, 1, 0, 0.999999, 256, 255, 4096]
    change = {key: random.choice(numbers) for key in random.sample(keys, random.choice([1, 2, 3]))}
    edit_json(folder / "generation_config.json", lambda values: values.update(change))


@mutation("json")
def text(folder: Path, random: Random) -> None:
    """Encodings, marks, doubled keys, other numbers."""
    path = random.choice(json_files(folder))
    whole = path.read_bytes()
    plain = whole.decode()
    start = plain.index("{") + 1
    path.write_bytes(
        random.choice(
            [
                b"\xef\xbb\xbf" + whole,
                plain.encode("utf-16"),
                plain.encode("utf-32"),
                plain.encode("utf-16-be"),
                whole + b"\0",
                whole.replace(b"a", b"\xff", 1),
                b"\0" * 100,
                whole + whole,
                whole + b"//",
                f"{{{plain[start:-2]}, {plain[start:]}".encode(),
                whole.replace(b",", b",,", 1),
                whole.replace(b'"', b"'"),
                whole.replace(b": ", b": +", 3),
                b"NaN",
                b"Infinity",
                b"",
                b" ",
                b"null",
                b'"x"',
                b"7",
                b"[]",
                b"{}",
                b"-" * 1000,
                b'{"a": ' + b"9" * 10_000 + b"}",
                b'{"a": 1e' + b"9" * 50 + b"}",
                b'{"a": "' + b"x" * 10**6,
                whole.replace(b'": ', b'": \x0b', 2),
                whole.replace(b"e", b"\\u0065"),
                whole.replace(b'"', b'"\\ud800', 1),
                whole.replace(b"\n", b"\r"),
            ]
        )
    )


@mutation("json", heavy=True)
def deep(folder: Path, random: Random) -> bool:
    """Brackets upon brackets, within the file or in place of it."""
    path = random.choice(json_files(folder))
    depth = random.choice([50, 990, 5000, 100_000, 3_000_000])
    opening, closing = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inner = opening * depth + b"1" + closing * depth * random.choice([0, 1])
    if random.random() < 0.5:
        path.write_bytes(inner)
        return depth > 1000  # fewer brackets are JSON, if they are closed
    start = path.read_bytes().lstrip()
    path.write_bytes(b'{"deep": ' + inner + b", " + start[1:])
    return False


@mutation("json", heavy=True)
def vast(folder: Path, random: Random) -> None:
    """A hundred megabytes of something; not often, for it takes a while to write."""
    path = random.choice(json_files(folder))
    count = random.choice([10**5, 10**6, 10**6, 10**7]) if random.random() < 0.9 else 10**8
    unit = random.choice([b"[", b"[],", b"{},", b"0,", b'"a",', b" ", b"9", b'{"a":', b"\\", b'"'])
    content = unit * (count // len(unit))
    inner = b"[" + content + b"0]" if unit.endswith(b",") else content
    path.write_bytes(random.choice([inner, b'{"vast": ' + inner + b", " + path.read_bytes().lstrip()[1:]]))


@mutation("json")
def restructured(folder: Path, random: Random) -> None:
    """Any part of a file replaced by any other, or gone."""
    path = random.choice(json_files(folder))
    whole = json.loads(path.read_bytes())
    for _ in range(random.choice([1, 1, 3])):
        place = whole
        while True:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(min(50, len(place))))
            if not keys:
                break
            key = random.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and random.random() < 0.7:
                place = place[key]
                continue
            if random.random() < 0.2:
                del place[key]
            else:
                place[key] = random.choice(VALUES)
            break
    path.write_bytes(json.dumps(whole).encode("utf-8", "surrogatepass"))
