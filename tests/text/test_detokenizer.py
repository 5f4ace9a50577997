"""Ids that arrive one by one become the text that decoding them all at once gives, whole characters at a time."""

from __future__ import annotations

import functools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from tgen.text.detokenizer import REPLACEMENT, Detokenizer
from tgen.text.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat, the dog did not", "été à la mer", "猫は猫", "no one knows 12 345", "😀 😀 😀😃"] * 2
SPECIAL = ["<s>", "</s>", "<unk>"]

# Several bytes, several code points to a character, several characters to a token - and the reverse.
hard = [
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{FAMILY}",
    "👩\N{ZERO WIDTH JOINER}🚀",
    "🏳\N{VARIATION SELECTOR-16}\N{ZERO WIDTH JOINER}🌈",
    "👍🏽",
    "🇫🇷",
    "ก็",
    "한국",
    "\N{ZERO WIDTH SPACE}",
    "\N{NO-BREAK SPACE}",
    "\N{MATHEMATICAL FRAKTUR CAPITAL U}",
]
words = ["the", "cat", " ", "  ", "\n", "été", "猫", "は", "😀", "12", ".", "<s", "▁", *hard]
texts = (
    st.lists(st.sampled_from(words) | st.characters(exclude_categories=["Cs"]), max_size=12)
    .map("".join)
    .filter(lambda t: REPLACEMENT not in t)
)

steady = settings(deadline=None, derandomize=True, database=None, max_examples=250)
every_kind = pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace"])


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    """Like that of GPT-2 and Llama 3; of Llama 2 and Mistral; of T5, which knows no bytes."""
    if kind == "byte-level":
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        library.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    elif kind == "byte-fallback":
        spelled = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + [*"▁theca猫", "th", "the", "▁the", "▁c", "▁▁"]
        merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "c"), ("▁", "▁")]
        vocab = {piece: number for number, piece in enumerate(spelled)}
        library = Library(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        library.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    elif kind == "stripped":
        library = Library.from_str(tokenizer("byte-level").library.to_str())  # type: ignore[union-attr]
        library.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 2, 0)])
    elif kind == "word-piece":
        library = Library(models.WordPiece(vocab={"<unk>": 0, "the": 1, "##cat": 2, "cat": 3}, unk_token="<unk>"))
        library.pre_tokenizer = pre_tokenizers.Whitespace()
        library.decoder = decoders.WordPiece()
    else:
        library = Library(models.Unigram())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Metaspace()
        library.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", show_progress=False))
    library.add_special_tokens(SPECIAL)
    return Tokenizer(library)


def stream(kind: str, prompt: list[int], ids: list[int]) -> list[str]:
    """The pieces of text, the flushed rest last."""
    detokenizer = Detokenizer(tokenizer(kind), prompt)
    return [*(detokenizer.feed(token) for token in ids), detokenizer.flush()]


@every_kind
@steady
@given(text=texts, share=st.floats(0, 1))
def test_any_text_after_any_prompt(kind: str, text: str, share: float) -> None:
    """The prompt is all ids up to some place, if whole characters end there."""
    decode, ids = tokenizer(kind).decode, tokenizer(kind).encode(text)
    place = round(share * len(ids))
    while decode(ids[:place]).endswith(REPLACEMENT):
        place -= 1
    pieces = stream(kind, ids[:place], ids[place:])
    assert decode(ids[:place]) + "".join(pieces) == decode(ids)
    assert pieces[-1] == ""
    assert not any(REPLACEMENT in piece for piece in pieces)
    if kind == "byte-level":
        assert decode(ids) == text


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
@steady
@given(before=texts, character=st.sampled_from([*"é猫😀🇫"]), missing=st.integers(1, 3))
def test_half_a_character_is_flushed(kind: str, before: str, character: str, missing: int) -> None:
    """Whatever of it has come; what was shown before stays as it is."""
    prompt = tokenizer(kind).encode(before)
    half = bytes_of(kind, character)[:-missing]
    pieces = stream(kind, prompt, half)
    assert not any(pieces[:-1])
    assert set(pieces[-1]) == ({REPLACEMENT} if half else set())


def bytes_of(kind: str, text: str) -> list[int]:
    """The ids of a text that is spelled byte by byte."""
    library = tokenizer(kind).library
    if kind == "byte-fallback":
        found = [library.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]
    else:
        spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]
        found = [library.token_to_id(character) for character in spelled]
    assert None not in found
    return [token for token in found if token is not None]


@every_kind
@steady
@given(prompt=st.lists(st.integers(0, 340), max_size=6), ids=st.lists(st.integers(0, 340), max_size=12))
def test_ids_that_make_no_sense_do_no_harm(kind: str, prompt: list[int], ids: list[int]) -> None:
    """Any ids, known or not, bytes in any order: never an error, and the text after them is as good as ever."""
    pieces = stream(kind, prompt, ids + tokenizer(kind).encode("the the"))
    assert "".join(pieces).endswith("the the")
    if kind == "byte-level":
        assert "".join(stream(kind, [], ids)) == tokenizer(kind).decode(ids)


def test_bytes_that_are_no_character_after_some_that_are() -> None:
    """Byte fallback decodes a run of bytes as a whole or not at all; what was shown is not taken back, and nothing is shown twice."""
    emoji, stray = bytes_of("byte-fallback", "😀"), bytes_of("byte-fallback", "😀")[-1:]
    after = tokenizer("byte-fallback").encode("the")
    assert stream("byte-fallback", [], emoji + stray + after) == ["", "", "", "😀", REPLACEMENT, " the", ""]
    assert stream("byte-fallback", [], emoji + stray) == ["", "", "", "😀", REPLACEMENT, ""]
    assert stream("byte-fallback", [], stray + emoji + after) == [*[REPLACEMENT] * 5, " the", ""]


@every_kind
def test_words_come_with_their_spaces(kind: str) -> None:
    prompt, ids = tokenizer(kind).encode("the"), tokenizer(kind).encode("the the the")
    assert "".join(stream(kind, prompt, ids[len(prompt) :])) == " the the"
    assert "".join(stream(kind, [], ids)) == "the the the"


@every_kind
def test_special_tokens_are_not_shown(kind: str) -> None:
    end = tokenizer(kind).library.token_to_id("</s>")
    assert end is not None
    ids = tokenizer(kind).encode("the the")
    assert "".join(stream(kind, [end], [end, *ids, end, end])) == "the the"


def test_text_appears_as_soon_as_it_is_whole() -> None:
    ids = bytes_of("byte-level", "a😀e\N{COMBINING ACUTE ACCENT}")
    assert [unicodedata.normalize("NFC", piece) for piece in stream("byte-level", [], ids)] == [
        "a", "", "", "", "😀", "e", "", "\N{COMBINING ACUTE ACCENT}", "",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace", "word-piece"])
@pytest.mark.parametrize("feature", ["text", "end tokens", "ids without an entry", "bytes that are no character"])
def test_a_token_costs_the_same_however_much_came_before(kind: str, feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In ids that the library is asked to decode."""
    made = tokenizer(kind)
    decoded: list[int] = []
    decode = Tokenizer.decode

    def counting(self: Tokenizer, ids: list[int]) -> str:
        decoded.append(len(ids))
        return decode(self, ids)

    stray = made.encode("the") if kind in ("metaspace", "word-piece") else bytes_of(kind, "😀")[-1:]
    ids = {
        "text": made.encode("the cat 😀 " * 50),
        "end tokens": [made.id_of("</s>") or 0] * 500,
        "ids without an entry": [9999] * 500,
        "bytes that are no character": stray * 500,
    }[feature]
    monkeypatch.setattr(Tokenizer, "decode", counting)
    detokenizer = Detokenizer(made, [])
    pieces = [*map(detokenizer.feed, ids), detokenizer.flush()]
    assert max(decoded, default=0) < 30
    assert "".join(pieces) == decode(made, ids)


@steady
@given(ids=st.lists(st.integers(0, 340), max_size=12), prompt=st.lists(st.integers(0, 340), max_size=3))
@pytest.mark.parametrize("kind", ["metaspace", "byte-level", "stripped"])
def test_any_ids_become_what_the_library_decodes(kind: str, prompt: list[int], ids: list[int]) -> None:
    decode = tokenizer(kind).decode
    if REPLACEMENT not in decode(prompt):
        assert decode(prompt) + "".join(stream(kind, prompt, ids)) == decode(prompt + ids)


@steady
@given(ids=st.lists(st.integers(0, 270), max_size=12))
def test_bytes_with_a_fallback_become_what_the_library_decodes(ids: list[int]) -> None:
    """But for bytes that follow shown ones, which are not taken back."""
    wanted, made = tokenizer("byte-fallback").decode(ids), "".join(stream("byte-fallback", [], ids))
    assert made == wanted or (REPLACEMENT in wanted and len(made) <= len(wanted))


@pytest.mark.parametrize("start", range(4))
def test_bytes_that_only_the_library_can_decode(start: int) -> None:
    """A tokenizer of which no entry has bytes of its own; a character may end anywhere among bytes that are none."""
    library = Library(tokenizer("byte-fallback").library.model)  # type: ignore[union-attr]
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace(Regex("x"), "y"), decoders.Fuse()])
    made = Tokenizer(library)
    assert made.token_bytes is None
    emoji = bytes_of("byte-fallback", "😀")
    ids = [*emoji[-1:] * (6 + start), *made.encode("a"), *emoji]
    detokenizer = Detokenizer(made, [])
    assert "".join([*map(detokenizer.feed, ids), detokenizer.flush()]) == made.decode(ids)
