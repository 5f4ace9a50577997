"""What each token adds to a text, in bytes: as the tokenizer decodes it, for every kind of decoder, and refused where that is not known."""

from __future__ import annotations

from itertools import product

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers

from tests.conftest import GOLDEN
from tgen.constraint.spelling import UNSPELLABLE, Spelling, read_spelling
from tgen.errors import UsageError
from tgen.text.tokenizer import Tokenizer

MODELS = GOLDEN.parents[1] / "models"
PIECES = ["▁", "▁the", "▁a", "a", "b", "{", "}", '"', '":', ":", "0", "1", "é", "yes", "▁yes", "no", "<0x41"]


def sentencepiece_like(*, strip: bool = True, decoder: decoders.Decoder | None = None) -> Tokenizer:
    """Pieces with a mark for a space, a byte for all that has none, and a start and an end token, as Llama 2 has them."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {piece: number for number, piece in enumerate(["<s>", "</s>", *fallback, *PIECES])}
    library = Library(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token=None))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if strip else [])]
    library.decoder = decoder or decoders.Sequence(steps)
    library.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(library)


@pytest.mark.parametrize(
    "tokenizer",
    [
        Tokenizer.load(GOLDEN / "gpt2"),
        Tokenizer.load(MODELS / "storyteller"),
        Tokenizer.load(MODELS / "english-french"),
        sentencepiece_like(),
        sentencepiece_like(strip=False),
    ],
    ids=["gpt2", "storyteller", "english-french", "stripped", "plain"],
)
def test_tokens_are_the_bytes_that_are_decoded(tokenizer: Tokenizer) -> None:
    spelling = read_spelling(tokenizer, tokenizer.size() + 3)
    assert len(spelling.tokens) == tokenizer.size() + 3
    before = tokenizer.decode(tokenizer.encode("a")).encode()
    whole = 0
    for token, text in enumerate(spelling.tokens):
        try:
            expected = text.decode()
        except UnicodeDecodeError:
            continue  # a part of a character
        whole += 1
        assert tokenizer.decode([*tokenizer.encode("a"), token]) == before.decode() + expected, token
    assert whole > 140


def test_special_tokens_add_nothing() -> None:
    spelling = read_spelling(sentencepiece_like(), 275)
    assert spelling.tokens[:2] == [b"", b""]
    assert spelling.tokens[2 + 0x41] == b"A"
    assert b"<0x41" in spelling.tokens


def test_the_start_of_a_text_may_lose_a_space() -> None:
    stripped, plain = (read_spelling(sentencepiece_like(strip=strip), 275) for strip in (True, False))
    assert stripped.loses_space([0])
    assert not stripped.loses_space([0, 259])
    assert not plain.loses_space([0])


@pytest.mark.parametrize(
    "decoder", [decoders.WordPiece(), decoders.BPEDecoder(), decoders.Sequence([decoders.Metaspace(), decoders.Strip(" ", 1, 0)])]
)
def test_other_decoders_are_refused(decoder: decoders.Decoder) -> None:
    with pytest.raises(UsageError, match="does not know which bytes a token is"):
        read_spelling(sentencepiece_like(decoder=decoder), 275)


def test_a_tokenizer_without_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match=r"needs a tokenizer\.json"):
        read_spelling(Tokenizer(object()), 10)  # type: ignore[arg-type]


def test_the_fewest_tokens_are_the_fewest() -> None:
    spelling = Spelling([b"", b"a", b"b", b"ab", b"ba", b"aba", b"bb" * 20])
    fewest = {b"": 0}
    for length in range(1, 5):
        for tokens in product([b"a", b"b", b"ab", b"ba", b"aba"], repeat=length):
            fewest.setdefault(b"".join(tokens), length)
    for text in [bytes(letters) for size in range(5) for letters in product(b"ab", repeat=size)]:
        costs = spelling.costs(text)
        assert costs[0] == fewest[text]
        assert spelling.costs(b"ab" + text, costs) == spelling.costs(b"ab" + text)
        written, rest = [], text
        while rest:
            costs = spelling.costs(rest)
            written.append(spelling.tokens[spelling.first(rest, costs)])
            rest = rest[len(written[-1]) :]
        assert (b"".join(written), len(written)) == (text, fewest[text])
    assert spelling.costs(b"abc")[0] >= UNSPELLABLE
    with pytest.raises(ValueError, match="no token"):
        spelling.first(b"c", spelling.costs(b"c"))
