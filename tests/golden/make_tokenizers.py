"""Write the golden tokenizers: a small folder for each kind of tokenizer file, and the ids that the reference gives for awkward texts.

Development only: `python -m tests.golden.make_tokenizers` needs transformers 5 and sentencepiece, which the tests do not.
"""

# mypy: ignore-errors

from __future__ import annotations

import base64
import gzip
import json
import lzma
import re
import shutil
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tests.golden.make import SENTENCES
from tgen.text.token_bytes import read_token_bytes
from tgen.train.vocabulary import learn_tokenizer

HERE = Path(__file__).parent / "tokenizers"
TEXTS = [
    "emoji 🎉👩‍👩‍👧 🇫🇷", "combining e\u0301 n\u0303 a\u030a", "lines\r\nof\r\nWindows", "\ttabs\t\there\t", "  leading and trailing   ",
    "many     spaces  between", "", "control \x01\x02\x1b[0m\x7f", "日本語と中文和한국어", "مرحبا بالعالم", "0 12 345 6789 1234567890 3.14",
    "def f(x):\n    return x**2  # code\n", "<s>[INST] </s> <|im_end|> [MASK] <unk> <pad> <extra_id_0>", "lone \\ud800 escape",
    "a" * 3000, "mixed Ελληνικά русский english ไทย", "NUL \x00 inside",
]  # fmt: skip

# What a normaliser replaces, in hexadecimal: a tab, a line feed, a carriage return, accents that combine, and two letters by one.
RULES = "9\t20\nA\t20\nD\t20\n65 301\tE9\n6E 303\tF1\n66 69\tFB01\n"
GEMMA = {"add_dummy_prefix": False, "user_defined_symbols": ["<start_of_turn>"]}


def main() -> None:
    """Write every folder anew."""
    from transformers import ByT5Tokenizer, GPT2Tokenizer, Qwen2Tokenizer
    from transformers.models.bert.tokenization_bert import BertTokenizer

    shutil.rmtree(HERE, ignore_errors=True)
    corpus = SENTENCES * 3 + ["مرحبا 日本語 Ελληνικά русский 12 345"] * 2
    bytes_ = json.loads(learn_tokenizer(corpus, 340).to_str())["model"]
    for name, library, config in (
        ("gpt2", GPT2Tokenizer, {}),
        ("gpt2_prefix", GPT2Tokenizer, {"add_prefix_space": True}),
        (
            "opt",
            GPT2Tokenizer,
            {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": True},
        ),
        ("qwen2", Qwen2Tokenizer, {"add_bos_token": False}),
    ):
        folder = made(name, {"tokenizer_class": library.__name__, **config})
        vocabulary = dict(bytes_["vocab"])
        for token in ("<|endoftext|>", "</s>", "<pad>"):
            vocabulary.setdefault(token, len(vocabulary))
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        merges = [one if isinstance(one, str) else " ".join(one) for one in bytes_["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
        expect(folder, library.from_pretrained(folder))
    words = sorted({word for text in corpus for word in text.lower().split()} | {"a", "##a", "##s", "e", "日", "本", "12"})
    for name, config in (("bert", {}), ("bert_cased", {"do_lower_case": False})):
        folder = made(name, {"tokenizer_class": "BertTokenizer", **config})
        entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        (folder / "vocab.txt").write_text("\n".join(entries) + "\n", "utf-8")
        expect(folder, BertTokenizer.from_pretrained(folder))
    folder = made("byt5", {"tokenizer_class": "ByT5Tokenizer"})
    expect(folder, ByT5Tokenizer.from_pretrained(folder))
    marked(corpus)
    rules = HERE / "rules.tsv"
    rules.write_text(RULES)
    for name, file, settings in (
        ("llama", "tokenizer.model", {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}),
        ("gemma", "tokenizer.model", {**GEMMA, "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}),
        # The rules of its own, for those that sentencepiece has by default take 240 KB; T5's model has them.
        ("unigram", "tokenizer.model", {"byte_fallback": True, "normalization_rule_tsv": rules.name}),
        ("t5", "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
    ):
        folder = made(name, {"extra_ids": 100} if name == "t5" else {})
        learn_pieces(corpus, folder / file, {"remove_extra_whitespaces": name in ("t5", "unigram"), **settings})
        write(folder, [piece_ids(folder / file, text) for text in TEXTS])
        if name == "t5":
            pack(folder / file)
    rules.unlink()
    tekken()


def marked(corpus: list[str]) -> None:
    """The small Blenderbot's vocabulary, which marks pieces that do not end a word."""
    from transformers import BlenderbotSmallTokenizer

    library = Tokenizer(models.BPE(unk_token="__unk__", end_of_word_suffix="</w>"))
    library.normalizer, library.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    library.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=200, end_of_word_suffix="</w>", show_progress=False))
    model = json.loads(library.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    names = [piece.removesuffix("</w>") if piece.endswith("</w>") else piece + "@@" for piece in pieces]
    folder = made("blenderbot_small", {"tokenizer_class": "BlenderbotSmallTokenizer"})
    entries = dict.fromkeys(["__null__", "__start__", "__end__", "__unk__", "__newln__", *names])
    (folder / "vocab.json").write_text(json.dumps({entry: number for number, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"]), "utf-8")
    expect(folder, BlenderbotSmallTokenizer.from_pretrained(folder))


def made(name: str, config: dict) -> Path:
    """An empty folder with its tokenizer_config.json."""
    folder = HERE / name
    folder.mkdir(parents=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return folder


def expect(folder: Path, reference) -> None:
    """Write the ids that the reference gives for each text."""
    write(folder, [reference(text)["input_ids"] for text in TEXTS])


def write(folder: Path, ids: list[list[int]]) -> None:
    """Write the texts with their ids, compressed: one of them is long and dull."""
    expected = json.dumps([{"text": text, "ids": one} for text, one in zip(TEXTS, ids, strict=True)]) + "\n"
    (folder / "expected.json.gz").write_bytes(gzip.compress(expected.encode(), mtime=0))


def pack(path: Path) -> None:
    """Compress a file, which `tests.conftest.tokenizer_folder` unpacks."""
    path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    path.unlink()


def piece_ids(path: Path, text: str) -> list[int]:
    """What sentencepiece gives for the parts between special tokens, and the start or end token of the form."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    size, sentinels = model.get_piece_size(), path.name == "spiece.model"
    special = {model.id_to_piece(number): number for number in range(size) if model.is_control(number) or model.is_unknown(number)}
    special |= {f"<extra_id_{number}>": size + 99 - number for number in range(100)} if sentinels else {}
    ids = []
    for part in re.split("(" + "|".join(map(re.escape, special)) + ")", text):
        if part in special:
            ids.append(special[part])
        else:
            ids += model.encode(part)
    return [*ids, 1] if sentinels else [1, *ids]


def learn_pieces(corpus: list[str], path: Path, settings: dict) -> None:
    """Learn a SentencePiece model."""
    import sentencepiece

    size = 400 if settings.get("byte_fallback") else 150
    common = {"vocab_size": size, "hard_vocab_limit": False, "minloglevel": 2, "character_coverage": 1.0}
    with path.open("wb") as file, chdir(HERE):  # else the model holds the paths of this machine
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=file, **common, **settings)


def tekken() -> None:
    """A tekken.json, and the ids of its definition: join the pair whose bytes have the lowest rank until there is none."""
    corpus = SENTENCES * 3
    library = learn_tokenizer(corpus, 340)
    spelled = read_token_bytes({"type": "ByteLevel"})
    found = [bytes([one]) for one in range(256)]
    found += [one for piece in sorted(library.get_vocab(False), key=library.get_vocab(False).get) if len(one := spelled.spell(piece)) > 1]
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    folder = made("tekken", {})
    names = ["<unk>", "<s>", "</s>", "[INST]"]
    values = {
        "config": {"pattern": pattern, "default_num_special_tokens": 10, "default_vocab_size": len(found) + 10, "version": "v3"},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(one).decode(), "token_str": None} for rank, one in enumerate(found)],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)],
    }
    (folder / "tekken.json").write_text(json.dumps(values) + "\n")
    ranks = {one: rank for rank, one in enumerate(found)}
    cutter = pre_tokenizers.Split(Regex(pattern), "isolated")

    def joined(parts: list[bytes]) -> list[bytes]:
        while pairs := [(ranks[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
            place = min(pairs)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return parts

    def plain(text: str) -> list[int]:
        pieces = [one.encode() for one in [one for one, _ in cutter.pre_tokenize_str(text)]]
        return [ranks[part] + 10 for one in pieces for part in ([one] if one in ranks else joined([bytes([b]) for b in one]))]

    ids = []
    for text in TEXTS:
        parts = re.split("(" + "|".join(map(re.escape, names)) + ")", text)
        ids.append([1, *(number for part in parts for number in ([names.index(part)] if part in names else plain(part)))])
    write(folder, ids)


if __name__ == "__main__":
    main()
