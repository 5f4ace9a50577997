"""Cutting books into documents, and turning stories into texts and conversations."""

import json
from pathlib import Path

from models.storyteller import books, chats


def test_pieces_hold_all_paragraphs_in_order_and_fit() -> None:
    paragraphs = [f"Paragraph {number} " + "word " * (number * 7 % 90) for number in range(120)]
    paragraphs[40] = "long " * 2000
    found = list(books.pieces("\n".join(paragraphs)))
    assert "\n".join(found).split("\n") == paragraphs
    assert len(found) > 5 and all(len(piece) <= books.PIECE + 200 for piece in found if "long" not in piece)


def test_picture_books_stay_whole_and_some_are_held_back(tmp_path: Path) -> None:
    lines = [{"kind": "picture book", "title": f"Title {n}", "text": f"Page one of {n}.\nPage two of {n}."} for n in range(100)]
    lines.append({"kind": "tale", "title": "Tales", "text": "\n".join(["Once there was a king. " * 20] * 50)})
    lines.append({"kind": "novel", "title": "Novel", "text": "It was late."})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    out, held = tmp_path / "out.jsonl", tmp_path / "held.txt"
    assert books.main([str(tmp_path / "in.jsonl"), "-o", str(out), "--held-back", str(held), "--repeat", "2"]) == 0
    texts = [json.loads(line)["text"] for line in out.read_text("utf-8").splitlines()]
    pictures = [text.removeprefix(books.PICTURE_BOOK) for text in texts if text.startswith(books.PICTURE_BOOK)]
    kept = [line["text"] for line in lines[:100] if books.held_back(line["title"])]
    assert 0 < len(kept) < 20
    assert sorted(pictures) == sorted(2 * [line["text"] for line in lines[:100] if line["text"] not in kept])
    assert held.read_text("utf-8").strip() == "\n\n".join(kept)
    assert len(texts) > len(pictures) and all(text.startswith((books.OLD_BOOK, books.PICTURE_BOOK)) for text in texts)


def test_wishes_may_become_plain_texts(tmp_path: Path) -> None:
    record = {"kind": "wish", "prompt": "Tell me a story.", "text": "word " * 90, "asked": []}
    short = {**record, "text": "A short one."}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [record, short] * 50), "utf-8")
    counts = []
    for plain in ("0", "0.5", "1"):
        assert chats.main([str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--plain", plain]) == 0
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
        counts.append(sum("text" in line for line in lines))
    assert counts[0] == 0 and 10 < counts[1] < 40 and counts[2] == 50
