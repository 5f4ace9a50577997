"""A folder's tokenizer.json: read, checked, and freed of what has no place in generation."""

from __future__ import annotations

import codecs
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as Library
from tokenizers.normalizers import Normalizer

from tests.conftest import GOLDEN
from tests.constraint.test_spelling import sentencepiece_like
from tests.engine.scripted import END, START, byte_library, byte_tokenizer
from tgen.errors import CheckpointError, UsageError
from tgen.files import read_json
from tgen.text.tokenizer import Tokenizer


def save(folder: Path, library: Library) -> Path:
    library.save(str(folder / "tokenizer.json"))
    return folder


def test_round_trip(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(save(tmp_path, byte_library()), vocab=258)
    assert tokenizer.encode("é!") == [0xC3, 0xA9, 0x21]
    assert tokenizer.decode([0xC3, 0xA9, 0x21]) == "é!"
    assert tokenizer.size() == 258


def test_special_tokens() -> None:
    tokenizer = byte_tokenizer(starts=True)
    assert tokenizer.encode("a") == [START, 97]
    assert tokenizer.encode("a", special=False) == [97]
    assert tokenizer.decode([START, 97, END]) == "a"
    assert tokenizer.decode([START, 97, END], special=True).replace(" ", "") == "<start>a<end>"


@pytest.mark.parametrize(("token", "piece"), [(97, "a"), (32, "Ġ"), (END, "<end>"), (999, "<999>")])
def test_pieces(token: int, piece: str) -> None:
    assert byte_tokenizer().piece(token) == piece


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    library = byte_library()
    library.enable_truncation(3)
    library.enable_padding(length=8)
    assert Tokenizer.load(save(tmp_path, library)).encode("abcde") == [*b"abcde"]


def test_an_id_beyond_the_models_embeddings_is_refused_when_a_text_holds_it(tmp_path: Path) -> None:
    save(tmp_path, byte_library())
    assert Tokenizer.load(tmp_path, vocab=300).encode("a")[0] == 97
    tokenizer = Tokenizer.load(tmp_path, vocab=98)
    assert tokenizer.encode("a", special=False) == [97]
    with pytest.raises(UsageError, match="the text holds 'b', id 98, but the model's vocabulary ends at 97") as caught:
        tokenizer.encode("ab", special=False)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer in"),
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b'{"version": "1.0"}', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    save(tmp_path, byte_library())
    for path in tmp_path.glob("*.json"):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert Tokenizer.load(tmp_path).encode("a") == [97]
    (tmp_path / "config.json").write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}


def test_the_bytes_of_tokens() -> None:
    tokenizer = byte_tokenizer()
    assert [tokenizer.bytes_of(token) for token in "😀".encode()] == [bytes([byte]) for byte in "😀".encode()]
    assert tokenizer.bytes_of(END) == b"<end>"
    assert tokenizer.bytes_of(999) is None
    fallback = sentencepiece_like()
    assert [fallback.bytes_of(fallback.id_of(piece) or 0) for piece in ("<0xF0>", "▁the", "é", "<0x41", "</s>")] == [
        b"\xf0", b" the", "é".encode(), b"<0x41", b"</s>",
    ]  # fmt: skip
    assert sentencepiece_like(decoder=decoders.WordPiece()).bytes_of(2) is None


def test_the_id_of_a_special_token_by_its_text() -> None:
    library = byte_library()
    library.add_tokens([AddedToken("<think>", special=False)])
    tokenizer = Tokenizer(library)
    assert tokenizer.special_id("<end>") == END
    assert tokenizer.special_id("<think>") is None, "it is not special, and shows in the text"
    for text in ("a", "", "<end", "<end><end>", " <end>"):
        assert tokenizer.special_id(text) is None


PROGRAM = """
import sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from tgen.text.tokenizer import Tokenizer
tokenizer = Tokenizer.load(Path({folder!r}))
text, going, results = "Once upon a time " * 50, threading.Event(), []
def encode():
    going.wait()
    results.extend(len(tokenizer.encode(text)) for _ in range(300))
threads = [threading.Thread(target=encode) for _ in range(2)]
for thread in threads:
    thread.start()
going.set()
count = 0
while any(thread.is_alive() for thread in threads) or count < 300:
    print("line", count, file=sys.stderr, flush=True)
    count += 1
print(count, len(results), len(set(results)))
"""


def test_threads_encode_while_another_writes_to_standard_error() -> None:
    program = PROGRAM.format(root=str(Path(__file__).parents[2]), folder=str(GOLDEN / "gpt2"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    count, encoded, lengths = map(int, done.stdout.split())
    assert (encoded, lengths) == (600, 1)
    assert done.stderr.splitlines() == [f"line {number}" for number in range(count)]


def test_encoding_waits_for_nobody(tmp_path: Path) -> None:
    """A thread may encode while another is in the middle of it: here one that never gets out of its normalizer."""
    library = byte_library()
    inside, out = threading.Event(), threading.Event()

    class Slow:
        def normalize(self, _: object) -> None:
            inside.set()
            out.wait(60)

    library.normalizer = Normalizer.custom(Slow())
    thread = threading.Thread(target=Tokenizer(library).encode, args=("a",))
    thread.start()
    try:
        assert inside.wait(60)
        assert Tokenizer.load(save(tmp_path, byte_library())).encode("b") == [98]
        assert thread.is_alive()
    finally:
        out.set()
        thread.join()
