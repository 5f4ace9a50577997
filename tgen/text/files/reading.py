"""Finds a folder's tokenizer, whichever files hold it, and makes it a tokenizer of the tokenizers library."""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import CheckpointError
from tgen.files import DOWNLOAD_HINT, read_optional_json, refuse_lfs_pointer
from tgen.text.files.added import Settings, add_tokens, apply_settings, read_settings, surround
from tgen.text.files.classes import BYTES, WORDS, with_class
from tgen.text.files.languages import fairseq_order, frame_source, pegasus_order, tokenizer_class
from tgen.text.files.marked import marked_library
from tgen.text.files.masked import albert_library, deberta_library
from tgen.text.files.merges import byte_library, merges_library, tekken_library, tiktoken_library
from tgen.text.files.pieces import MOST_SENTINELS, PieceModel, piece_library, read_pieces
from tgen.text.files.wordpieces import wordpiece_library

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

    from tgen.text.files.sentencepiece import SentencePieces

MAX_BYTES, MAX_STRIP = 200 * 2**20, 100
TRIAL = "Once upon a time, 12 [MASK]\n"
PIECES = "tokenizer.model, spiece.model, spm.model, sentencepiece.bpe.model"
FILES = f"tokenizer.json, {PIECES}, vocab.json with merges.txt, vocab.txt, tekken.json, or tiktoken.model"


@contextmanager
def damage(what: str, file: str = "tokenizer.json") -> Iterator[None]:
    """Turn whatever the library raises into CheckpointError: bare Exceptions, and panics, which are only BaseExceptions."""
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: {error}", f"correct {file}, or {DOWNLOAD_HINT}") from error


def read_library(folder: Path) -> Library | SentencePieces:
    """The tokenizer of a folder or a GGUF file. Raises CheckpointError if there is none or its file is damaged."""
    from tgen.text.files.sentencepiece import find_sentencepieces

    if folder.is_file():
        from tgen.text.files.gguf import gguf_library

        with damage(f"the tokenizer in {folder} is damaged", folder.name):
            return _tried(gguf_library(folder))
    settings = read_settings(folder)
    path = next((path for name in _READERS if (path := folder / name).is_file()), None)
    if path is not None and path.name == "sentencepiece.bpe.model" and (folder / "vocab.json").is_file():
        path = None  # M2M-100's, which `find_sentencepieces` reads
    if path is None or (path.name == "vocab.json" and not (folder / "merges.txt").is_file()):
        if found := find_sentencepieces(folder, settings):
            return found
        if not _is_bytes(folder, settings):
            raise CheckpointError(f"no tokenizer in {folder}", f"a model folder holds {FILES}; download the folder again")
        return _with_tokens(byte_library(_sentinels(settings, 125)), settings)
    refuse_lfs_pointer(path)
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_BYTES // 2**20} MiB, too large for such a file", DOWNLOAD_HINT)
    with damage(f"{path} is damaged", path.name):
        return _tried(_READERS[path.name](path, settings))


def _tried(library: Library) -> Library:
    library.no_padding()
    library.no_truncation()
    library.decode(library.encode(TRIAL).ids)  # some damage shows only when it is used
    return library


def decoder_of(library: Library) -> dict[str, Any] | None:
    """The decoder as tokenizer.json spells it."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    if library.decoder is None:
        return None
    alone = Library(models.BPE())  # to write the vocabulary, too, would take a second where it is large
    alone.decoder = library.decoder
    decoder: dict[str, Any] = json.loads(alone.to_str())["decoder"]
    return decoder


def _json(path: Path, settings: Settings) -> Library:
    from tokenizers import Tokenizer as Library

    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    for found in re.finditer(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"', data):
        _refuse_cut(base64.b64decode(found[1].replace(b"\\/", b"/"), validate=True))
    library = Library.from_buffer(data)
    decoder = decoder_of(library)
    for step in [] if decoder is None else decoder.get("decoders", [decoder]):
        if step["type"] == "Strip" and max(step["start"], step["stop"]) > MAX_STRIP:
            raise ValueError("its decoder strips without end")  # the library panics where a token is shorter
    library = apply_settings(library, settings)
    frame_source(library, path.parent, settings)
    return library


def _model(path: Path, settings: Settings) -> Library:
    """A SentencePiece model in Llama's form: texts get a start token."""
    model = _checked(path)
    library = _with_tokens(piece_library(model, settings.values), settings)
    surround(library, _with_names(settings, model), start=True, end=False, always=True)
    return library


def _spiece(path: Path, settings: Settings) -> Library:
    """A SentencePiece model of ALBERT, or in T5's form: texts get an end token, and sentinels stand behind the pieces, the last first."""
    model = _checked(path)
    if tokenizer_class(path.parent, settings) == "AlbertTokenizer":
        return _with_tokens(albert_library(model, settings), settings)
    if model.name(model.end) is None:
        raise ValueError("the SentencePiece vocabulary lacks an end token")
    if tokenizer_class(path.parent, settings) == "PegasusTokenizer":
        model, settings = pegasus_order(model, settings), Settings({**settings.values, "extra_ids": 0}, settings.added)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(_sentinels(settings, 100)))]
    library = _with_tokens(piece_library(model, settings.values, sentinels), settings)
    surround(library, _with_names(settings, model), start=False, end=True, always=True)
    return library


def _fairseq(path: Path, settings: Settings) -> Library:
    """A SentencePiece model of fairseq's (XLM-RoBERTa, CamemBERT, mBART, NLLB): texts get a start and an end token, or a language code."""
    from tokenizers import processors

    model, behind = fairseq_order(_checked(path), path.parent, settings)
    library = _with_tokens(piece_library(model, settings.values, behind), settings)
    ends = ["<s>", "</s>"]
    numbers = [(end, number) for end in ends if (number := library.token_to_id(end)) is not None]
    if len(numbers) == 2:
        library.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=numbers)
    frame_source(library, path.parent, settings)
    return library


def _checked(path: Path) -> PieceModel:
    model = read_pieces(path)
    if model.characters:
        _refuse_cut(model.characters)
    return model


def _with_names(settings: Settings, model: PieceModel) -> Settings:
    """The settings; where they name no start or end token, with the model's."""
    names = {"bos_token": model.name(model.start), "eos_token": model.name(model.end)}
    return Settings({**names, **{key: value for key, value in settings.values.items() if value is not None}}, settings.added)


def _merges(path: Path, settings: Settings) -> Library:
    from tokenizers import processors

    settings = with_class(settings, _model_type(path.parent), BYTES)
    if settings.kind == "BlenderbotSmallTokenizer":
        return _with_tokens(marked_library(path.parent, settings), settings)
    library = _with_tokens(merges_library(path.parent, settings.kind, settings.values), settings)
    if settings.kind in ("RobertaTokenizer", "BartTokenizer"):
        ends = [str(settings.named("cls_token")), str(settings.named("sep_token"))]
        numbers = [(end, number) for end in ends if (number := library.token_to_id(end)) is not None]
        if len(numbers) == 2:
            library.post_processor = processors.TemplateProcessing(single=f"{ends[0]} $A {ends[1]}", special_tokens=numbers)
    else:
        surround(library, settings, start=False, end=False)
    return library


def _words(path: Path, settings: Settings) -> Library:
    settings = with_class(settings, _model_type(path.parent), WORDS)
    return _with_tokens(wordpiece_library(path, settings), settings)


def _names(settings: Settings) -> dict[int, str]:
    """The tokens that the settings add, by their ids."""
    return {number: str(values["content"]) for number, values in settings.added.items()}


def _with_tokens(library: Library, settings: Settings) -> Library:
    add_tokens(library, settings)
    return library


_READERS: dict[str, Callable[[Path, Settings], Library]] = {
    "tokenizer.json": _json,
    "tokenizer.model": _model,
    "spiece.model": _spiece,
    "spm.model": lambda path, settings: _with_tokens(deberta_library(_checked(path), settings), settings),
    "sentencepiece.bpe.model": _fairseq,
    "tekken.json": lambda path, settings: _with_tokens(tekken_library(path), settings),
    "tiktoken.model": lambda path, settings: _with_tokens(tiktoken_library(path, _names(settings)), settings),
    "vocab.json": _merges,
    "vocab.txt": _words,
}


def _refuse_cut(table: bytes) -> None:
    """Raise ValueError for a damaged table of characters: the library would panic over it, and write to standard error."""
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size > len(table) - 4:
        raise ValueError("its precompiled_charsmap is cut off")
    table[4 + size - size % 4 :].decode("utf-8")


def _sentinels(settings: Settings, default: int) -> int:
    count = settings.values.get("extra_ids", default)
    if not isinstance(count, int) or not 0 <= count <= MOST_SENTINELS:
        message = f"tokenizer_config.json: extra_ids is {count!r}, not a number from 0 to {MOST_SENTINELS}"
        raise CheckpointError(message, "correct it or leave it out")
    return count


def _model_type(folder: Path) -> str:
    return str(read_optional_json(folder / "config.json").get("model_type"))


def _is_bytes(folder: Path, settings: Settings) -> bool:
    """Whether the folder is ByT5's, which has no file of pieces."""
    return "ByT5Tokenizer" in (settings.kind, read_optional_json(folder / "config.json").get("tokenizer_class"))
