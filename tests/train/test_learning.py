"""What a run learns and reports: tasks that a tiny model masters in seconds, and the parts of a step, each computed here once more."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tgen
from tgen.events import Evaluated, Note, Sampled, Trained, TrainingEvent
from tgen.train.base_model import BaseModel
from tgen.train.inputs import read_pairs
from tgen.train.optimisers.optimiser import initialise, make_optimiser
from tgen.train.pairs import PairObjective, split_pairs
from tgen.train.settings import TrainSettings
from tgen.train.speed import compiled
from tgen.train.texts import TextObjective
from tgen.train.trainer import Trainer
from tgen.train.workspace import Workspace

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
SHAPE: dict[str, Any] = {"width": 64, "vocab": 300, "context": 32, "seed": 1}


def trainer(workspace: Workspace, **options: Any) -> Trainer:
    made = Trainer(workspace, torch.device("cpu"), **{"compiled": False, **options})
    made.dtype = torch.float32
    return made


def last_evaluation(events: list[TrainingEvent]) -> Evaluated:
    return [event for event in events if isinstance(event, Evaluated)][-1]


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainingEvent]]:
    """A run on a text in which each word follows from the one before, and what it reported."""
    folder = tmp_path_factory.mktemp("text")
    workspace = Workspace(folder / "model")
    text = written(folder, "text.txt", f"{' '.join(NUMBERS)} " * 300)
    workspace.create([text], TrainSettings(**SHAPE, layers=1, batch=8, steps=150, learning_rate=0.01))
    return folder / "model", list(trainer(workspace).run())


def test_a_text_is_learned_by_heart(by_heart: tuple[Path, list[TrainingEvent]]) -> None:
    folder, events = by_heart
    assert last_evaluation(events).bits_per_byte < 0.03
    [loss] = [event.loss for event in events if isinstance(event, Trained) and event.step == 150]
    assert loss < 0.1
    continued = tgen.load(folder).generate(f"{' '.join(NUMBERS)} one two three", temperature=0, max_new_tokens=12)
    assert continued.split()[:6] == ["four", "five", "six", "seven", "eight", "nine"]


def test_sentences_never_seen_are_copied_after_learning_to_copy(tmp_path: Path) -> None:
    pairs = "".join(f"{a} {b}\t{a} {b}\n" for a in NUMBERS for b in NUMBERS)
    path, workspace = Path(written(tmp_path, "pairs.tsv", pairs)), Workspace(tmp_path / "model")
    settings = TrainSettings(**SHAPE, layers=2, batch=32, steps=350, learning_rate=0.003, validation=0.05, label_smoothing=0.0)
    workspace.create_pairs(path, settings)
    assert last_evaluation(list(trainer(workspace).run())).bits_per_byte < 0.03
    _, held = split_pairs(read_pairs(path), 0.05)
    generator = tgen.load(tmp_path / "model")
    assert [generator.generate(source, temperature=0, num_beams=1, max_new_tokens=10) for source, _ in held] == [t for _, t in held]


def test_held_back_bits_per_byte_of_texts_is_the_loss_over_all_the_text(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "model")
    text = written(
        tmp_path, "text.txt", "".join(f"Line {i} says {NUMBERS[i % 12]} to {NUMBERS[i * 5 % 11]}, café 🎉.\n" for i in range(600))
    )
    workspace.create([text], TrainSettings(**SHAPE, layers=1, batch=7, steps=2, validation=0.1))
    run = trainer(workspace)
    found = last_evaluation(list(run.run())).bits_per_byte
    objective = run.objective
    assert isinstance(objective, TextObjective)
    ids = torch.from_numpy(objective.corpus.validation.astype("int64"))
    whole = (len(ids) - 1) // 32 * 32
    assert whole > 2 * 7 * 32  # more than one batch, and the last is not full
    assert whole // 32 % 7
    with torch.no_grad():
        nats = sum(
            F.cross_entropy(run.model.logits(run.model(row[None, :-1]))[0], row[1:], reduction="sum") for row in ids.unfold(0, 33, 32)
        )
    size = len(run.tokenizer.decode(ids[1 : whole + 1].tolist()).encode())
    assert found == pytest.approx(float(nats) / math.log(2) / size, rel=2e-3)  # a character cut at an end decodes to others


def test_held_back_bits_per_byte_of_pairs_is_the_loss_over_all_targets(tmp_path: Path) -> None:
    text = "".join(f"{a} and {b}\t{b} et {'é' * (i % 5)} {a}\n" for i, a in enumerate(NUMBERS) for b in NUMBERS)
    path, workspace = Path(written(tmp_path, "pairs.tsv", text)), Workspace(tmp_path / "model")
    workspace.create_pairs(path, TrainSettings(**SHAPE, layers=1, batch=5, steps=2, validation=0.15))
    run = trainer(workspace)
    found = last_evaluation(list(run.run())).bits_per_byte
    assert isinstance(run.objective, PairObjective)
    _, held = split_pairs(read_pairs(path), 0.15)
    nats, size = 0.0, 0
    with torch.no_grad():
        for source, target in held:
            ids = torch.tensor([[run.objective.end, *run.tokenizer.encode(target).ids]])
            hidden = run.model(ids[:, :-1], source=run.model.read_source(torch.tensor([run.tokenizer.encode(source).ids]), None))
            nats += float(F.cross_entropy(run.model.logits(hidden)[0], ids[0, 1:], reduction="sum"))
            size += len(target.encode())
    assert len(held) > 10
    assert len(held) % 5
    assert found == pytest.approx(nats / math.log(2) / size, rel=1e-4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "model")
    text = written(tmp_path, "few.txt", "".join(f"{one} {other}. " for one in NUMBERS for other in NUMBERS))
    made.create([text], TrainSettings(**SHAPE, layers=1, batch=4, steps=20, learning_rate=0.01, warmup=0.25, clip=0.05, validation=0.2))
    return made


def test_gradients_are_clipped_to_their_norm(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run, norms = trainer(workspace), []
    step: Callable[..., Any] = run.optimiser.step

    def watched() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]).norm()))
        step()

    monkeypatch.setattr(run.optimiser, "step", watched)
    list(run.run())
    assert norms == pytest.approx([0.05] * 20, rel=1e-4)  # all were longer


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(workspace: Workspace) -> None:
    rates = [event.learning_rate for event in trainer(workspace).run() if isinstance(event, Trained)]
    rise = [0.00001, 0.002, 0.004, 0.006, 0.008]
    assert rates == pytest.approx(rise + [0.01 * (20 - step) / 15 for step in range(5, 20)])


def test_the_optimiser_is_given_the_rate_that_is_reported(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(workspace)
    used: list[float] = []
    step: Callable[..., Any] = run.optimiser.step

    def watched() -> None:
        used.extend(group["lr"] for group in run.optimiser.param_groups)
        step()

    monkeypatch.setattr(run.optimiser, "step", watched)
    rates = [event.learning_rate for event in run.run() if isinstance(event, Trained)]
    assert used == [rate for rate in rates for _ in run.optimiser.param_groups]


@pytest.mark.usefixtures("workspace")
def test_the_loss_of_two_half_batches_is_that_of_one(tmp_path: Path) -> None:
    reports = []
    for batch, accumulate in ((8, 1), (4, 2)):
        other = Workspace(tmp_path / f"of {batch}")
        settings = TrainSettings(**SHAPE, layers=1, batch=batch, accumulate=accumulate, steps=3, validation=0.2)
        other.create([str(tmp_path / "few.txt")], settings)
        reports.append([(event.loss, event.tokens) for event in trainer(other).run() if isinstance(event, Trained)])
    assert [tokens for _, tokens in reports[0]] == [tokens for _, tokens in reports[1]] == [8 * 32 * step for step in (1, 2, 3)]
    assert [loss for loss, _ in reports[0]] == pytest.approx([loss for loss, _ in reports[1]], rel=1e-4)


def test_no_gradient_is_left_for_the_next_step(workspace: Workspace) -> None:
    run = trainer(workspace)
    for event in run.run():
        if isinstance(event, Trained):
            assert all(parameter.grad is None or not parameter.grad.any() for parameter in run.model.parameters())


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimiser = make_optimiser(model, 0.5)
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    optimiser.step()
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full(parameter.shape, 0.95 if parameter.ndim == 2 else 1.0))


def test_what_adds_to_the_residual_stream_begins_smaller(workspace: Workspace, tmp_path: Path) -> None:
    path = Path(written(tmp_path, "pairs.tsv", "a\tb\nc\td\ne\tf\n"))
    pairs = Workspace(tmp_path / "pairs")
    pairs.create_pairs(path, TrainSettings(**SHAPE, layers=1, steps=1, validation=0.3))
    for run, smaller in ((trainer(workspace), 2), (trainer(pairs), 4)):  # attention and feed-forward of each layer
        initialise(run.model, layers=8, seed=0)
        deviations = [float(p.detach().std()) for p in run.model.parameters() if p.ndim == 2]
        assert sum(0.004 < deviation < 0.006 for deviation in deviations) == smaller
        assert sum(0.019 < deviation < 0.021 for deviation in deviations) == len(deviations) - smaller


def test_where_the_compiler_fails_training_goes_on_and_says_why(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no room\n  for the cache")

    wanted = [event.loss for event in trainer(Workspace(workspace.folder)).run() if isinstance(event, Trained)]
    (workspace.inner / "state.pt").unlink()
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    events = list(trainer(workspace, compiled=True).run())
    [note] = [event.text for event in events if isinstance(event, Note) and "compiler" in event.text]
    assert note == "warning: training goes on without the compiler, whose step failed: no room for the cache"
    assert [event.loss for event in events if isinstance(event, Trained)] == wanted


def test_a_step_compiles_as_one_graph(workspace: Workspace) -> None:
    run = trainer(workspace)
    (tensors, _) = run._batch(0)
    whole = compiled(run._loss_function(torch.bfloat16), backend="eager", fullgraph=True)  # else a break raises
    assert torch.equal(whole(*tensors), run._loss_function(torch.bfloat16)(*tensors))


def test_a_finished_run_is_not_compiled_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    list(trainer(workspace).run())
    monkeypatch.delattr(torch, "compile")
    again = trainer(Workspace(workspace.folder), compiled=True)
    assert last_evaluation(list(again.run())).step == 20


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_samples_are_of_the_model_that_is_written(tmp_path: Path, by_heart: tuple[Path, list[TrainingEvent]], share: float) -> None:
    workspace, base = Workspace(tmp_path / "model"), BaseModel(by_heart[0])
    settings = TrainSettings(steps=8, batch=8, learning_rate=0.03, validation=0.2, base_share=share)
    text = written(tmp_path, "text.txt", "three two one twelve " * 300)
    workspace.create([text], base.settings(settings), None, base)
    run = trainer(workspace, prompt="one two three")
    [sample] = [event for event in run.run() if isinstance(event, Sampled)]
    assert (sample.prompt, sample.text.startswith(" four five six seven")) == ("one two three", share == 1.0)


def test_to_write_an_average_changes_nothing_of_what_is_learned(
    tmp_path: Path, by_heart: tuple[Path, list[TrainingEvent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgen.train.trainer.bfloat16_is_faster", lambda _: False)  # on a busy machine, its answer changes
    learned, base = [], BaseModel(by_heart[0])
    text = written(tmp_path, "text.txt", "three two one twelve " * 300)
    for every in (1, 4):
        workspace = Workspace(tmp_path / f"model{every}")
        settings = TrainSettings(steps=4, batch=8, learning_rate=0.01, validation=0.2, base_share=0.5)
        workspace.create([text], base.settings(settings), None, base)
        run = trainer(workspace, every=every)
        list(run.run())
        learned.append(run.model.state_dict())
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())
