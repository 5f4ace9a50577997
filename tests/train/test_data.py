"""The text that a run learns from: batches of text and of sentence pairs, and the curve that the run leaves behind."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from tgen.errors import UsageError
from tgen.events import Evaluated
from tgen.train.inputs import read_pairs
from tgen.train.outputs import curve, ticks
from tgen.train.pairs import PADDING, PairObjective, split_pairs
from tgen.train.settings import TrainSettings
from tgen.train.texts import Sequences, document_starts, encode_documents, with_beginnings
from tgen.train.trainer import Trainer
from tgen.train.vocabulary import learn_tokenizer
from tgen.train.workspace import Workspace

SHAPE: dict[str, Any] = {"width": 64, "layers": 1, "vocab": 300, "context": 32, "steps": 3, "seed": 5}
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PAIRS = [(f"{one} and {other}.", f"{other} et {one} !") for one in NUMBERS for other in NUMBERS if one != other]


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"{english} {french}\n" for english, french in PAIRS * 4), "utf-8")
    return str(path)


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{english}\t{french}\n" for english, french in PAIRS), "utf-8")
    return path


def trained(workspace: Workspace) -> dict[str, torch.Tensor]:
    trainer = Trainer(workspace, torch.device("cpu"), compiled=False)
    trainer.dtype = torch.float32
    [evaluated] = [event for event in trainer.run() if isinstance(event, Evaluated)]
    assert math.isfinite(evaluated.bits_per_byte)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_an_epoch_reads_every_piece_once() -> None:
    ids = np.arange(1 + 40 * 8, dtype=np.uint16)
    sequences = Sequences(ids, 8, 0)
    starts = [int(row[0]) for number in range(13) for row in sequences.batch(number, 3)]
    assert len(set(starts)) == 39
    assert {start % 8 for start in starts} == {starts[0] % 8}


def test_beginnings_are_those_of_documents() -> None:
    end, context = 0, 8
    ids = np.array([*range(1, 30), end, *range(101, 130), end, *range(201, 230), end, 1, 2, end], dtype=np.uint16)
    starts = document_starts(ids, context, end)
    assert [int(ids[start + 1]) for start in starts] == [101, 201]  # after the third, and at the end, there is no whole sequence
    found: list[int] = []
    sequences = Sequences(ids, context, 0)
    for number in range(200):
        rows = sequences.batch(number, 4)
        mixed = with_beginnings(rows.copy(), ids, starts, 0.5, 0, number)
        assert (mixed == with_beginnings(rows.copy(), ids, starts, 0.5, 0, number)).all()
        for row, was in zip(mixed, rows, strict=True):
            begins = row[0] == end
            assert (row == (ids[starts[0 if row[1] == 101 else 1] :][: context + 1] if begins else was)).all()
            found += [int(row[1])] if begins else [0]
    assert 0.45 < np.mean(np.array(found) > 0) < 0.6
    assert 0.4 < found.count(101) / (found.count(101) + found.count(201)) < 0.6
    assert (with_beginnings(rows, ids, starts, 0.0, 0, 0) == rows).all()


def test_a_document_is_framed_by_end_tokens_once(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path / "model")
    workspace.create([text], TrainSettings(**SHAPE))
    tokenizer = workspace.open().tokenizer
    assert encode_documents(tokenizer, ["one", "two"], 0).tolist().count(0) == 2
    assert tokenizer.encode("one").ids[0] == 0  # a prompt begins as a document does


@pytest.mark.parametrize("sentences", [False, True])
def test_every_text_is_decoded_to_itself(sentences: bool) -> None:
    tokenizer = learn_tokenizer(["in 1984 a man of 7", "12 men, 3.5 miles"], 300, sentences=sentences)
    for text in ("In 1984, I was 7.", "12 men", "don't 3.5", "a", "7", "a  b", "国王 2", "🎉", " two", "line\nline"):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
    first, second = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("man", "a man"))
    assert (second[-len(first) :] == first) == sentences  # a sentence's first word is spelled like any other


def test_two_half_batches_added_up_are_one(tmp_path: Path, text: str) -> None:
    weights = []
    for batch, accumulate in ((8, 1), (4, 2)):
        workspace = Workspace(tmp_path / f"run{batch}")
        workspace.create([text], TrainSettings(**SHAPE, batch=batch, accumulate=accumulate))
        weights.append(trained(workspace))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)


def test_pairs_are_learned_from_and_never_held_back_too(tmp_path: Path, tsv: Path) -> None:
    workspace = Workspace(tmp_path / "run")
    assert workspace.create_pairs(tsv, TrainSettings(**SHAPE, batch=10, validation=0.1)) == 0
    objective = workspace.open().objective
    assert isinstance(objective, PairObjective)
    batches = len(objective.corpus.source) // 10
    seen: Counter[bytes] = Counter()
    for number in range(batches):
        ids, positions, target = objective.batch(number)
        assert ((positions == PADDING) | (positions == np.arange(positions.shape[1]))).all()
        assert (target[:, 0] == objective.end).all()
        for row, places in zip(ids, positions, strict=True):
            assert row[places >= 0][-1] == objective.end
            seen[row[places >= 0].tobytes()] += 1
    assert seen.total() == 10 * batches
    assert max(seen.values()) == 1
    held = {objective.corpus.held_source.row(i).astype(np.int64).tobytes() for i in range(len(objective.corpus.held_source))}
    assert len(held) == len(objective.corpus.held_source) > 10
    assert not held & set(seen)


def test_a_run_on_pairs_leaves_a_translator(tmp_path: Path, tsv: Path) -> None:
    folder = tmp_path / "run"
    Workspace(folder).create_pairs(tsv, TrainSettings(**SHAPE, batch=10))
    before = trained(Workspace(folder))
    after = trained(Workspace(folder))  # nothing is left to do
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert ElementTree.parse(folder / "loss.svg").getroot().tag.endswith("svg")


def test_a_source_is_on_one_side_of_the_split_with_all_its_targets() -> None:
    pairs = [(f"source {i // 3}", f"target {i}") for i in range(300)]
    train, held = split_pairs(pairs, 0.05)
    assert len(held) == 15
    assert not {source for source, _ in train} & {source for source, _ in held}


@pytest.mark.parametrize("line", ["no tab", "two\ttabs\there", "\tempty", "empty\t "])
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(f"a\tb\n\n{line}\n", "utf-8")
    with pytest.raises(UsageError, match="line 3"):
        read_pairs(path)


@pytest.mark.parametrize("values", [[2.0], [3.5, 2.0, 1.5], [1.0, 1.0]])
def test_the_curve_is_a_picture(values: list[float]) -> None:
    root = ElementTree.fromstring(curve([{"tokens": 1e6 * i, "bits_per_byte": value} for i, value in enumerate(values)]))
    [line] = root.findall("{*}polyline")
    assert len(line.attrib["points"].split()) == len(values)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.47, 1.98), (0, 11.8), (3.001, 3.02)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert low <= found[0] < found[-1] <= high
