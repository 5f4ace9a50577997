"""Tokenizers of byte pairs: vocab.json with merges.txt (GPT-2, Qwen), Mistral's tekken.json, Kimi's tiktoken.model; ByT5 needs no file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.files import read_json, refuse_lfs_pointer
from tgen.text.files.cutting import CUTS, Cut
from tgen.text.token_bytes import spelled_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

MOST_RESERVED = 10_000
BYT5_START = ("<pad>", "</s>", "<unk>")


def splits(piece: str, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs of vocabulary entries that make up an entry, those with the lowest ids first."""
    pairs = [(piece[:place], piece[place:]) for place in range(1, len(piece))]
    return sorted((pair for pair in pairs if pair[0] in ids and pair[1] in ids), key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def merges_library(folder: Path, kind: str, settings: dict[str, Any]) -> Library:
    """The tokenizer of vocab.json and merges.txt; `kind` is the class that tokenizer_config.json names. Raises ValueError."""
    from tokenizers import models

    cut = CUTS["qwen2" if kind.startswith("Qwen2") else "gpt-2"]
    ids, merges = read_merges(folder)
    for left, right in merges:
        if left + right not in ids:  # at which the library may panic
            raise ValueError(f"merges.txt joins {left!r} and {right!r}, which make no entry of vocab.json")
    return cut_library(models.BPE(ids, merges), cut, prefix=bool(settings.get("add_prefix_space")))


def read_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The ids of vocab.json and the pairs of merges.txt. Raises ValueError."""
    vocabulary, path = read_json(folder / "vocab.json"), folder / "merges.txt"
    refuse_lfs_pointer(path)
    if not all(isinstance(number, int) for number in vocabulary.values()):
        raise ValueError("vocab.json holds ids that are no numbers")
    lines = path.read_text("utf-8").split("\n")
    parts = [line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in parts):
        raise ValueError("merges.txt has a line that is not two entries")
    return vocabulary, [(left, right) for left, right in parts]


def tekken_library(path: Path) -> Library:
    """The tokenizer of tekken.json: special tokens first, then byte strings in the order of their merges. Raises ValueError."""
    from tokenizers import AddedToken, models, processors

    values = read_json(path)
    try:
        config, entries = values["config"], values["vocab"]
        specials, inner = int(config["default_num_special_tokens"]), int(config["default_vocab_size"])
        names = {int(one["rank"]): str(one["token_str"]) for one in values.get("special_tokens") or _old_specials()}
        ordered = sorted((int(one["rank"]), spelled_bytes(base64.b64decode(one["token_bytes"], validate=True))) for one in entries)
        pattern = str(config["pattern"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks or mistakes {error}") from error
    ordered = ordered[: inner - specials]
    if [rank for rank, _ in ordered] != list(range(len(ordered))):
        raise ValueError("its ranks do not count from 0")
    special = [names.get(rank, f"<SPECIAL_{rank}>") for rank in range(specials)]
    ids = {token: number for number, token in enumerate(special)} | {piece: specials + rank for rank, piece in ordered}
    library = cut_library(models.BPE(ids, _all_merges([piece for _, piece in ordered]), ignore_merges=True), Cut((pattern,)))
    library.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if "<s>" in special:
        library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    return library


def tiktoken_library(path: Path, added: Mapping[int, str]) -> Library:
    """The tokenizer of Kimi's tiktoken.model: byte strings in the order of their merges, and the `added` tokens with reserved ones between.

    Raises ValueError.
    """
    from tokenizers import AddedToken, models

    lines = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
    if any(len(line) != 2 or not line[1].isdigit() for line in lines):
        raise ValueError("it has a line that is not a byte string and its rank")
    ordered = sorted((int(rank), spelled_bytes(base64.b64decode(token, validate=True))) for token, rank in lines)
    if [rank for rank, _ in ordered] != list(range(len(ordered))):
        raise ValueError("its ranks do not count from 0")
    pieces = [piece for _, piece in ordered]
    library = cut_library(models.BPE({piece: rank for rank, piece in ordered}, _all_merges(pieces), ignore_merges=True), CUTS["kimi-k2"])
    if max(added, default=0) > len(pieces) + MOST_RESERVED:
        raise ValueError(f"tokenizer_config.json adds the id {max(added)} to {len(pieces)} byte strings")
    names = [added.get(number, f"<|reserved_token_{number}|>") for number in range(len(pieces), max(added, default=0) + 1)]
    library.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return library


def _all_merges(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """Every way to join two of the pieces into a third, in the order of the joined pieces."""
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    return [pair for piece in pieces if len(piece) > 1 for pair in splits(piece, ranks)]


def byte_library(sentinels: int) -> Library:
    """ByT5's tokenizer: each byte is its number + 3, and `sentinels` stand behind the bytes."""
    from tokenizers import AddedToken, models, processors

    ids = {token: number for number, token in enumerate(BYT5_START)} | {spelled_bytes(bytes([byte])): byte + 3 for byte in range(256)}
    library = cut_library(models.BPE(ids, []), Cut())
    library.add_tokens([AddedToken(token, special=True, normalized=False, lstrip=True, rstrip=True) for token in BYT5_START])
    library.add_tokens([AddedToken(f"<extra_id_{number}>", special=True, normalized=False) for number in range(sentinels)])
    library.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return library


def cut_library(model: models.BPE, cut: Cut, *, prefix: bool = False) -> Library:
    """A tokenizer of byte pairs that cuts texts as `cut` says; `prefix` puts a space before a text that begins without one."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Library

    library = Library(model)
    steps: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cut.patterns]
    if cut.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=cut.words))
    library.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    if cut.composed:
        library.normalizer = normalizers.NFC()
    library.decoder = decoders.ByteLevel()
    return library


def _old_specials() -> Iterator[dict[str, Any]]:
    """The special tokens of the first tekken files, which do not list them."""
    names = "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad>"
    more = " [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX]"
    for rank, name in enumerate((names + more).split()):
        yield {"rank": rank, "token_str": name}
