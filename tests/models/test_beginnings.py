"""Documents of the beginnings of stories."""

import json
from pathlib import Path

from models.storyteller import beginnings


def test_a_beginning_ends_with_a_sentence_and_outside_of_what_somebody_says() -> None:
    said = "One two three four. " * 11 + 'Then Tom said, "Come here. ' + "Come here. " * 9 + 'Come." And more. And still more.'
    part = beginnings.beginning(said)
    assert said.startswith(part) and part.endswith('Come."')
    assert beginnings.beginning("Short. Story.") == "Short. Story."


def test_each_long_story_that_answers_no_words_gives_one_beginning(tmp_path: Path) -> None:
    text = "It was late. " * 60
    records = [{"kind": kind, "text": f"{kind} {number}. {text}"} for kind in ("story", "words", "wish") for number in range(10)]
    records.append({"kind": "story", "text": "Too short."})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    assert beginnings.main([str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]) == 0
    documents = [json.loads(line)["text"].split(beginnings.BETWEEN) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [len(one) for one in documents] == [8, 8, 4]
    firsts = {one.split(".")[0] for document in documents for one in document}
    assert firsts == {f"{kind} {number}" for kind in ("story", "wish") for number in range(10)}
