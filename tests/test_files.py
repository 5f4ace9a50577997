"""Text that is read with or without a byte order mark, and files that are whole or absent wherever they are written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tgen.errors import UsageError
from tgen.files import decode_text, try_writing, write_atomically, write_text

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (MARK, ""), (MARK + b"a", "a"), (MARK * 2 + b"a", "\ufeffa"), (b"a" + MARK, "a\ufeff"), ("é日".encode(), "é日")],
)
def test_one_byte_order_mark_at_the_very_start_is_dropped(data: bytes, text: str) -> None:
    assert decode_text(data, "it") == text
    assert decode_text(data, "it", start=False) == data.decode()


def test_the_first_byte_that_is_not_utf8_is_counted_from_the_start() -> None:
    with pytest.raises(UsageError, match=r"^the text is not UTF-8 at byte 4$") as caught:
        decode_text(MARK + b"a\xff", "the text")
    assert "iconv" in (caught.value.hint or "")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_the_hint_for_another_encoding_works(encoding: str) -> None:
    """The command that the hint names makes UTF-8 of what Windows programs write."""
    data = "café".encode(encoding)
    with pytest.raises(UsageError) as caught:
        decode_text(data, "it")
    command = (caught.value.hint or "").removeprefix("convert it, for example with ").split()
    assert subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode() == "café"


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """In a folder that others may write to, a temporary file with a name that can be guessed might be a link to anything."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "shared").mkdir()
    for name in (".out.partial", f".out.{os.getpid()}.partial"):
        (tmp_path / "shared" / name).symlink_to(tmp_path / "victim")
    names: list[str] = []

    def write(path: Path) -> None:
        names.append(path.name)
        path.write_text("new")

    for _ in range(2):
        write_atomically(tmp_path / "shared" / "out", write, shared=True)
        try_writing(tmp_path / "shared" / "out")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "shared" / "out").is_symlink()
    assert len(set(names)) == 2


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    for text in ("one", "two"):  # at first it leads nowhere
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "file").read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "link", "real"]


def test_permissions_are_the_files_own_or_the_umasks(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("")
    (tmp_path / "private").chmod(0o600)
    seen: list[int] = []

    def write(path: Path) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        path.write_text("secret")

    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "private", write)
        write_atomically(tmp_path / "new", write)
    finally:
        os.umask(before)
    assert seen == [0o600, 0o640]  # from the first byte on
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "new")] == [0o600, 0o640]


def test_what_killed_processes_left_is_removed_unless_others_may_be_writing(tmp_path: Path) -> None:
    left, other = tmp_path / ".out.0123456789abcdef.partial", tmp_path / ".outer.0123456789abcdef.partial"
    for path in (left, other):
        path.write_text("half")
    write_atomically(tmp_path / "out", lambda path: path.touch(), shared=True)
    assert left.exists()
    write_text(tmp_path / "out", "x")
    assert not left.exists()
    assert other.exists()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    try_writing(pipe)
    write_text(pipe, "through")
    reader.join()
    assert read == ["through"]
    assert pipe.is_fifo()


def test_standard_output_is_a_file_that_can_be_written_to() -> None:
    """/dev/stdout is a link to what is no path at all where stdout is a pipe."""
    program = "from pathlib import Path; from tgen.files import *; p = Path('/dev/stdout'); try_writing(p); write_text(p, 'through')"
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout == b"through"


@pytest.mark.parametrize("write", [try_writing, lambda path: write_text(path, "x")])
def test_an_error_names_the_file_that_was_asked_for(write: object, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "file", tmp_path / "folder"):
        with pytest.raises(OSError) as caught:
            write(path)  # type: ignore[operator]
        assert caught.value.filename == str(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_trying_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    for name in ("there", "new"):
        try_writing(tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there", "old")]
