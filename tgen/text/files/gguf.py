"""Makes a tokenizer of the tokenizers library from the metadata of a GGUF file, and finds its chat template there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import CheckpointError, UnsupportedError
from tgen.files import DOWNLOAD_HINT
from tgen.gguf_header import Header, read_header
from tgen.text.files.added import Settings, add_tokens, surround
from tgen.text.files.classes import WORDS
from tgen.text.files.cutting import CUTS
from tgen.text.files.merges import cut_library
from tgen.text.files.pieces import BPE, CONTROL, SPACE, UNIGRAM, UNKNOWN, USER_DEFINED, PieceModel, piece_library
from tgen.text.files.wordpieces import pieces_library

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
UNUSED, BYTE = 5, 6
# The names that transformers has for special tokens, and GGUF's.
NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "seperator": "sep_token", "padding": "pad_token"} | {
    "cls": "cls_token",
    "mask": "mask_token",
}


def gguf_library(path: Path) -> Library:
    """The tokenizer of a file. Raises CheckpointError if it is damaged, UnsupportedError for a kind that is not implemented."""
    header = read_header(path)
    kind = header.text(f"{KEY}model")
    if kind is None:
        raise CheckpointError(f"{path} has no tokenizer: its metadata lack {KEY}model", "get a file with one, or the model's folder")
    if kind not in _READERS:
        message = f"{path}: {KEY}model = {kind!r} is not implemented"
        raise UnsupportedError(message, f"implemented: {', '.join(_READERS)}")
    tokens, kinds = header.items(f"{KEY}tokens", str), header.items(f"{KEY}token_type", int)
    if not tokens or len(kinds) not in (0, len(tokens)):
        raise CheckpointError(f"{path} has {len(tokens)} tokens and the types of {len(kinds)}", DOWNLOAD_HINT)
    return _READERS[kind](header, tokens, kinds or [1] * len(tokens))


def gguf_settings(header: Header) -> Settings:
    """What a tokenizer_config.json would say: the special tokens by their names, and which of them texts get."""
    tokens = header.items(f"{KEY}tokens", str)
    found: dict[str, Any] = {}
    for theirs, ours in NAMES.items():
        number = header.whole(f"{KEY}{theirs}_token_id")
        if number is not None and 0 <= number < len(tokens):
            found[ours] = tokens[number]
    flags = {name: header.flag(f"{KEY}{name}") for name in ("add_bos_token", "add_eos_token")}
    return Settings(found | {name: flag for name, flag in flags.items() if flag is not None}, {})


def _pieces(header: Header, tokens: list[str], kinds: list[int]) -> Library:
    """SentencePiece's BPE, as Llama 2, Mistral and Gemma have it."""
    model = _model(header, tokens, kinds, BPE, one_space=False)
    library = piece_library(model, {})
    surround(library, gguf_settings(header), start=True, end=False, always=True)
    return library


def _unigrams(header: Header, tokens: list[str], kinds: list[int]) -> Library:
    """SentencePiece's unigrams, as T5 and XLM-RoBERTa have them."""
    model = _model(header, tokens, kinds, UNIGRAM, one_space=True)
    model.characters = bytes(one & 255 for one in header.items(f"{KEY}precompiled_charsmap", int))
    library = piece_library(model, {})
    surround(library, gguf_settings(header), start=False, end=True, always=True)
    return library


def _model(header: Header, tokens: list[str], kinds: list[int], kind: int, *, one_space: bool) -> PieceModel:
    scores = header.items(f"{KEY}scores", float)
    if len(scores) != len(tokens):
        raise CheckpointError(f"{header.path} has {len(tokens)} tokens and {len(scores)} scores", DOWNLOAD_HINT)
    prefix, spaces = header.flag(f"{KEY}add_space_prefix"), header.flag(f"{KEY}remove_extra_whitespaces")
    unknown = header.whole(f"{KEY}unknown_token_id")
    if unknown is None:
        unknown = next((number for number, one in enumerate(kinds) if one == UNKNOWN), 0)
    model = PieceModel(
        list(zip(tokens, scores, kinds, strict=True)),
        kind,
        BYTE in kinds,
        unknown,
        dummy_prefix=prefix is not False,
        one_space=one_space if spaces is None else spaces,
    )
    if model.name(model.unknown) is None:
        raise CheckpointError(f"{header.path} has no unknown token", DOWNLOAD_HINT)
    return model


def _pairs(header: Header, tokens: list[str], kinds: list[int]) -> Library:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    from tokenizers import models

    name = header.text(f"{KEY}pre") or "default"
    if name not in CUTS:
        raise UnsupportedError(f"{header.path}: {KEY}pre = {name!r} is not implemented", f"implemented: {', '.join(CUTS)}")
    cut = CUTS[name]
    ids = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    # llama.cpp allows a pair that makes no token. The tokenizers library would panic.
    merges = [(left, right) for left, right in _split_merges(header) if left + right in ids]
    library = cut_library(models.BPE(ids, merges, ignore_merges=cut.whole), cut)
    _add(library, tokens, kinds)
    surround(library, gguf_settings(header), start=cut.start, end=False, always=True)
    return library


def _split_merges(header: Header) -> Iterator[tuple[str, str]]:
    """The pairs to join. A space stands between the two entries; as the very first character it belongs to the first one."""
    for merge in header.items(f"{KEY}merges", str):
        left, _, right = merge[1:].partition(" ")
        if not right:
            raise CheckpointError(f"{header.path}: {KEY}merges has {merge[:40]!r}, which is not two entries", DOWNLOAD_HINT)
        yield merge[:1] + left, right


def _words(header: Header, tokens: list[str], kinds: list[int]) -> Library:
    """BERT's word pieces: GGUF marks those that begin a word, BERT those that continue one."""
    ids: dict[str, int] = {}
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
        plain = kind not in (CONTROL, USER_DEFINED)
        ids[token.removeprefix(SPACE) if token.startswith(SPACE) or not plain else f"##{token}"] = number
    lower = header.flag(f"{KEY}normalizer.lowercase")
    settings = Settings({**WORDS, "do_lower_case": lower is not False}, {})
    library = pieces_library(ids, settings)
    add_tokens(library, settings)
    return library


def _add(library: Library, tokens: list[str], kinds: list[int]) -> None:
    """Add the tokens that the library must find in a text before any other step."""
    from tokenizers import AddedToken

    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) and token:
            library.add_tokens([AddedToken(token, special=kind != USER_DEFINED, normalized=False)])


_READERS = {"llama": _pieces, "gpt2": _pairs, "bert": _words, "t5": _unigrams}
