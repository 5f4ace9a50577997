"""tokenizer.json as an enemy would write it, and SentencePiece models with flipped bits."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutation import SINGLE, edit_json, mutation
from tests.fuzz.values import VALUES
from tests.text.learnt import learn_folders

# Patterns that try ever more ways to match as a text gets longer, that match nothing, that repeat without end, and that are none.
PATTERNS = [
    "(a+)+$",
    "(a|a)*$",
    "(a|aa)+$",
    "(.*)*x",
    "(?:a?){60}a{60}",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(x+x+)+y",
    r"(\w+\s?)*\Z!",
    "(?=(a+))a*b\\1",
    "",
    "()",
    "$",
    "^",
    "(?!)",
    "(",
    "[",
    "*",
    "a{100000}",
    "(a{1000}){1000}",
    "((((a{100}){100}){100}){100})",
    "\\p{Nope}",
    "(?<n>a)\\k<m>",
    "\\g<0>",
    "(?<x>a\\g<x>?b)",
    "a" * 100_000,
    "(" * 5000 + ")" * 5000,
    "\ud800",
    "\0",
    ".",
    "\\X",
    "(?i)ß",
    r"(?<=a+)b",
    "[[:nope:]]",
]


def split(pattern: dict[str, str], random: Random) -> dict[str, Any]:
    behavior = random.choice(["Isolated", "Removed", "MergedWithNext", "MergedWithPrevious", "Contiguous"])
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": random.choice([True, False])}


@mutation("tokenizer")
def patterns(folder: Path, random: Random) -> None:
    """Regular expressions in each place that may hold one."""
    pattern = {random.choice(["Regex", "Regex", "Regex", "String"]): random.choice(PATTERNS)}
    replace = {"type": "Replace", "pattern": pattern, "content": random.choice(["", "a", "\0", "x" * 1000])}
    change = random.choice(
        [
            {"pre_tokenizer": split(pattern, random)},
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        split(pattern, random),
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                    ],
                }
            },
            {"normalizer": replace},
            {"normalizer": {"type": "Sequence", "normalizers": [replace] * random.choice([1, 30])}},
            {"decoder": replace},
            {"decoder": {"type": "Sequence", "decoders": [replace, replace]}},
        ]
    )
    edit_json(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(change))


@mutation("tokenizer")
def ids(folder: Path, random: Random) -> None:
    """Ids that are negative, huge, doubled, missing or beyond the embedding."""

    def change(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        for piece in random.sample(list(vocab), random.choice([1, 1, 5, len(vocab) // 2])):
            vocab[piece] = random.choice([-1, 0, 5, 287, 288, 10**6, 2**31 - 1, 2**32 - 1, 2**32, 2**63, 10**30, 1.5, "1", None, True])

    edit_json(folder / "tokenizer.json", change)


@mutation("tokenizer")
def pieces(folder: Path, random: Random) -> None:
    """Spellings: gone, strange, endless, with halves of characters."""

    def change(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        for piece in random.sample(list(vocab), random.choice([1, 5, 50, len(vocab)])):
            number = vocab.pop(piece)
            new = random.choice(
                ["", "\ud800", "\x1b]0;owned\x07", "[/INST]", "[bold]", "\0", "x" * 10_000, "é" * 9, "\u202e", f"n{number}", None]
            )
            if new is not None:
                vocab[new] = number

    edit_json(folder / "tokenizer.json", change)


@mutation("tokenizer")
def merges(folder: Path, random: Random) -> None:
    def change(tokenizer: dict[str, Any]) -> None:
        merges = tokenizer["model"]["merges"]
        new = [["a", "a"], ["zz", "zz"], ["", ""], ["a"], [], "a a", "a", "", " ", "a b c", None, 7, ["\ud800", "a"], {}, *merges[:1]]
        for _ in range(random.choice([1, 3])):
            merges.insert(random.randrange(len(merges) + 1), random.choice(new))
        if random.random() < 0.2:
            tokenizer["model"]["merges"] = random.choice([None, {}, "a", merges[::-1], merges * 1000])

    edit_json(folder / "tokenizer.json", change)


@mutation("tokenizer")
def added_tokens(folder: Path, random: Random) -> None:
    token = {"id": 287, "content": "a", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}

    def change(tokenizer: dict[str, Any]) -> None:
        new: list[Any] = []
        for _ in range(random.choice([1, 2, 1000])):
            content = random.choice(["", "a", " ", "\x1b]0;x\x07", "[/INST]", "\ud800", "x" * 1000, "Once", "\n", "[MASK]"])
            new.append({**token, "id": random.choice([0, 1, 286, 287, 288, 2**32 - 1, 2**32, -1, None]), "content": content})
            new[-1] |= {key: random.choice([True, False]) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        tokenizer["added_tokens"] = random.choice([new, tokenizer["added_tokens"] + new, VALUES[random.randrange(len(VALUES))]])

    edit_json(folder / "tokenizer.json", change)


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"a": {"id": "a", "ids": [5], "tokens": ["a"]}},
}


@mutation("tokenizer")
def parts(folder: Path, random: Random) -> None:
    """Other normalizers, pre-tokenizers, processors, decoders, truncation and padding, some of them broken."""
    template = json.loads(json.dumps(TEMPLATE))
    template["special_tokens"]["a"]["ids"] = random.choice([[5], [], [-1], [288], [2**32 - 1], [5] * 100_000, None])
    truncation = {
        "direction": "Right",
        "max_length": random.choice([0, 1, 2**63, -1]),
        "strategy": "LongestFirst",
        "stride": random.choice([0, 1, 512]),
    }
    padding = {
        "strategy": random.choice(["BatchLongest", {"Fixed": random.choice([1, 512, 2**30, 2**40])}]),
        "direction": "Right",
        "pad_to_multiple_of": random.choice([None, 0, 8, 2**40]),
        "pad_id": 2**31,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    choices: list[dict[str, Any]] = [
        {"post_processor": template},
        {"truncation": truncation},
        {"padding": padding},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 10_000}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": random.choice(["", "AAAA", "////", "!", "A" * 4000])}},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Nope"}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "xx"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": random.choice([0, 1, 2**63, -1])}},
        {"decoder": {"type": "Strip", "content": "a", "start": random.choice([0, 2**63]), "stop": random.choice([0, 2**40])}},
        {"decoder": None},
        {"decoder": {"type": "WordPiece", "prefix": "", "cleanup": True}},
        {"decoder": {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}},
        {"decoder": {"type": "ByteFallback"}},
        {"decoder": {"type": "Fuse"}},
        {"decoder": {"type": "BPEDecoder", "suffix": ""}},
        {"pre_tokenizer": None},
        {"post_processor": {"type": "BertProcessing", "sep": ["a", 2**32 - 1], "cls": ["b", 288]}},
        {
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": ["a", 400],
                "cls": ["b", 0],
                "trim_offsets": True,
                "add_prefix_space": True,
            }
        },
    ]
    edit_json(
        folder / "tokenizer.json",
        lambda tokenizer: [tokenizer.update(change) for change in random.sample(choices, random.choice([1, 1, 3]))],
    )


@mutation("tokenizer")
def models(folder: Path, random: Random) -> None:
    """Another kind of model over the same pieces, with its own ways to be wrong."""
    vocab = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    scores: list[Any] = [[piece, random.choice([-1.0, 0.0, -1e308, 5])] for piece in vocab]
    new: dict[str, Any] = random.choice(
        [
            {
                "type": "Unigram",
                "unk_id": random.choice([0, None, 287, 400, -1, 2**40]),
                "vocab": random.choice([scores, [], scores[:1], [["", 0.0]]]),
                "byte_fallback": random.choice([True, False]),
            },
            {
                "type": "WordPiece",
                "unk_token": random.choice(["<|end|>", "nope", ""]),
                "continuing_subword_prefix": random.choice(["##", ""]),
                "max_input_chars_per_word": random.choice([0, 100, 2**63]),
                "vocab": vocab,
            },
            {"type": "WordLevel", "vocab": random.choice([vocab, {}]), "unk_token": random.choice(["<|end|>", "nope"])},
            {
                "type": "BPE",
                "vocab": vocab,
                "merges": [],
                "dropout": random.choice([0.5, 1.0, 2.0, -1, None]),
                "unk_token": random.choice([None, "nope", "a"]),
                "fuse_unk": True,
                "byte_fallback": True,
            },
            {"type": "BPE", "vocab": {}, "merges": []},
            {"type": "BPE"},
            {},
            {"vocab": vocab},
        ]
    )
    edit_json(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(model=new))


@mutation("sentencepiece", SINGLE, goldens=("t5", "marian"))
def spoilt(folder: Path, random: Random) -> None:
    """The SentencePiece files in place of tokenizer.json, with something wrong in one of them."""
    (folder / "tokenizer.json").unlink()
    kind = json.loads((folder / "config.json").read_bytes())["model_type"]
    shutil.copytree(sentencepieces()[kind], folder, dirs_exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": random.choice([3, 3, 3, 0, -1, 10**30, True, None, "3"])}))
    path = random.choice(sorted(path for path in folder.iterdir() if path.suffix in (".spm", ".model") or path.name == "vocab.json"))
    data = bytearray(path.read_bytes())
    match random.randrange(5):
        case 0:
            for _ in range(random.choice([1, 1, 4, 50])):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 1:
            data = data[: random.randrange(len(data))]
        case 2:
            data = data[-2000:]  # what follows the pieces: normalizer and trainer
        case 3:
            for _ in range(5):
                data[-1 - random.randrange(300)] = random.randrange(256)
        case 4:
            data += random.choice([b"\x0a\x00", b"\x0a\xff\xff\xff\xff\x0f", random.randbytes(30)])
    path.write_bytes(data)


@functools.cache
def sentencepieces() -> dict[str, Path]:
    """Folders with the SentencePiece files of T5 and Marian; they go when the process ends."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    return learn_folders(root)
