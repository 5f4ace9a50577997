"""Reads a SentencePiece model file, unigram or BPE, as a tokenizer of the tokenizers library. Needs no sentencepiece package."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgen.errors import UnsupportedError
from tgen.files import refuse_lfs_pointer
from tgen.text.files.merges import splits

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

SPACE = "▁"
UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
MOST_SENTINELS = 10_000


@dataclass(slots=True)
class PieceModel:
    """What a SentencePiece file says: its pieces with score and kind, and how it treats white space."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    byte_fallback: bool = False
    unknown: int = 0
    start: int = 1
    end: int = 2
    characters: bytes = b""
    dummy_prefix: bool = True
    one_space: bool = True
    marks_space: bool = True
    space_behind: bool = False

    def name(self, number: int) -> str | None:
        """The piece with this id; None for -1, which stands for a token that the model does not have."""
        return self.pieces[number][0] if 0 <= number < len(self.pieces) else None


def read_pieces(path: Path) -> PieceModel:
    """A file's content. Raises ValueError for a damaged one, CheckpointError for one that cannot be read."""
    refuse_lfs_pointer(path)
    model = PieceModel()
    for number, value in _fields(path.read_bytes()):
        if number == 1:
            piece = dict(_fields(_bytes(value)))
            score = struct.unpack("<f", _bytes(piece[2]))[0] if 2 in piece else 0.0
            model.pieces.append((_bytes(piece[1]).decode(), score, _integer(piece.get(3, 1))))
        elif number == 2:
            trainer = {key: one for key, one in _fields(_bytes(value)) if isinstance(one, int)}
            model.kind, model.byte_fallback = trainer.get(3, UNIGRAM), bool(trainer.get(35, 0))
            model.unknown, model.start, model.end = (_signed(trainer.get(key, key - 40)) for key in (40, 41, 42))
            model.space_behind = bool(trainer.get(24, 0))
        elif number == 3:
            rules = dict(_fields(_bytes(value)))
            model.characters = _bytes(rules.get(2, b""))
            model.dummy_prefix, model.one_space, model.marks_space = (bool(rules.get(key, 1)) for key in (3, 4, 5))
    if model.name(model.unknown) is None:
        raise ValueError("it has no pieces, or no unknown token")
    if model.kind not in (UNIGRAM, BPE):
        raise UnsupportedError(
            f"{path} is a SentencePiece model of words or characters, which is not implemented", "implemented: unigram, BPE"
        )
    if model.space_behind or not model.marks_space:
        what = "puts the mark of a space behind words" if model.space_behind else "does not mark spaces"
        raise UnsupportedError(f"{path} is a SentencePiece model that {what}, which is not implemented", "convert it to a tokenizer.json")
    return model


def piece_library(model: PieceModel, settings: dict[str, Any], extra: Iterable[str] = ()) -> Library:
    """The tokenizer of a model; `extra` are tokens behind its pieces. The caller adds start and end tokens."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Library

    vocabulary = [(piece, score) for piece, score, _ in model.pieces] + [(token, 0.0) for token in extra]
    if model.kind == UNIGRAM:
        library = Library(models.Unigram(vocabulary, model.unknown, model.byte_fallback))
    else:
        ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        fallback, unknown = model.byte_fallback, model.name(model.unknown)
        library = Library(models.BPE(ids, _merges(vocabulary, ids), fuse_unk=True, byte_fallback=fallback, unk_token=unknown))
    steps: list[normalizers.Normalizer] = []
    if model.characters:
        steps.append(normalizers.Precompiled(model.characters))
    if model.one_space:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]  # other white space stays
    prefix = settings.get("add_prefix_space", model.dummy_prefix)
    prefix = model.dummy_prefix if prefix is None else bool(prefix)
    # Metaspace would put no space before a text that starts with one.
    steps += [*([normalizers.Prepend(SPACE)] if prefix else []), normalizers.Replace(" ", SPACE)]
    if model.kind == UNIGRAM and not any(SPACE in piece[1:] for piece, _, kind in model.pieces if kind == NORMAL):
        library.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "never")  # no piece crosses words, and words are read faster one by one
    if steps:
        library.normalizer = normalizers.Sequence(steps)
    if model.kind == UNIGRAM and not model.byte_fallback:
        library.decoder = decoders.Metaspace(SPACE, "always" if prefix else "never")
    else:
        strip = [decoders.Strip(" ", 1, 0)] if prefix else []
        library.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    for piece, _, kind in model.pieces:
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) and piece:
            library.add_tokens([AddedToken(piece, special=kind != USER_DEFINED, normalized=False)])
    library.add_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    return library


def _merges(vocabulary: list[tuple[str, float]], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the joined piece with the highest score first."""
    found = [(-score, left, right) for piece, score in vocabulary for left, right in splits(piece, ids)]
    return [(left, right) for _, left, right in sorted(found, key=lambda one: one[0])]


Value = int | bytes


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a protocol buffer. Raises ValueError where it is cut off."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        value: Value
        if wire == 0:
            value, place = _varint(data, place)
        elif wire in (1, 2, 5):
            size, place = _varint(data, place) if wire == 2 else (8 if wire == 1 else 4, place)
            if size > len(data) - place:
                raise ValueError("it is cut off")
            value, place = data[place : place + size], place + size
        else:
            raise ValueError("it is no SentencePiece model")
        yield key >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut off")
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return value, place
    raise ValueError("it is no SentencePiece model")


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise ValueError("it is no SentencePiece model")
    return value


def _integer(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("it is no SentencePiece model")
    return value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
