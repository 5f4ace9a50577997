"""The samples that a run shows: they continue the held-back text's own words, cut to what the model can read, and never end the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

import tgen.train.sample
from tgen.events import Evaluated, Note, Sampled, TrainingEvent
from tgen.train.sample import fitting
from tgen.train.settings import TrainSettings
from tgen.train.trainer import Trainer
from tgen.train.vocabulary import learn_tokenizer
from tgen.train.workspace import Workspace

ENGLISH = "The fox saw the old king, and the king saw the fox.\n"
CHINESE = "从前有一个国王,他有三个儿子。国王老了,想把王国交给最聪明的儿子。\n"
TURKISH = "Güneş köye döndü, çocuk gülümsedi ve güneşe şöyle seslendi.\n"
EMOJI = "🎉🎊👩‍👩‍👧‍👦🎈\n"
LANGUAGES = {"English": ENGLISH, "Chinese": CHINESE, "Turkish": TURKISH, "emoji": EMOJI}
SHAPE: dict[str, Any] = {"width": 64, "layers": 1, "vocab": 300, "batch": 2, "steps": 2, "seed": 3}

every_language = pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)


def begin(folder: Path, text: str, **settings: Any) -> Workspace:
    path = folder / "text.txt"
    path.write_text(text, "utf-8")
    workspace = Workspace(folder / "model")
    workspace.create([str(path)], TrainSettings(**{**SHAPE, **settings}))
    return workspace


def run(workspace: Workspace, **options: Any) -> list[TrainingEvent]:
    return list(Trainer(workspace, torch.device("cpu"), compiled=False, **options).run())


def samples(events: list[TrainingEvent]) -> list[Sampled]:
    return [event for event in events if isinstance(event, Sampled)]


@every_language
@pytest.mark.parametrize("context", [1, 3, 8, 16])
def test_a_run_ends_well_whatever_the_context(tmp_path: Path, text: str, context: int) -> None:
    workspace = begin(tmp_path, text * 40, context=context, validation=0.2)
    events = run(workspace, every=1)
    assert not [event for event in events[1:] if isinstance(event, Note)]
    assert [event.step for event in events if isinstance(event, Evaluated)] == [1, 2]
    opening = workspace.open().objective.opening()
    found = samples(events)
    assert len(found) == (2 if len(fitting(workspace.open().tokenizer, opening, context - context // 2)) else 0)
    assert all(opening.startswith(sample.prompt) and sample.prompt for sample in found)
    if context in (1, 16):
        assert len(found) == (0 if context == 1 else 2)


@every_language
def test_samples_begin_as_the_held_back_text_does(tmp_path: Path, text: str) -> None:
    workspace = begin(tmp_path, text * 400, context=64, validation=0.2)
    [sample] = samples(run(workspace))
    held = workspace.open()
    first = held.tokenizer.decode(held.objective.corpus.validation[:100].tolist()).strip()  # type: ignore[attr-defined]
    assert first.startswith(sample.prompt)
    assert 4 <= len(sample.prompt) <= 30
    assert first[len(sample.prompt)] in " \n" or " " not in first[:30]  # whole words, where there are any
    assert not sample.answer


def test_a_long_prompt_is_cut_to_what_fits(tmp_path: Path) -> None:
    workspace = begin(tmp_path, ENGLISH * 200, context=16)
    [sample] = samples(run(workspace, prompt="The king " * 50))
    assert sample.prompt
    assert ("The king " * 50).startswith(sample.prompt)
    assert len(sample.prompt) < 100


def test_the_command_to_use_the_model_survives_a_prompt_that_looks_like_an_option(tmp_path: Path) -> None:
    trainer = Trainer(begin(tmp_path, "--temperature\n" * 400, context=8, validation=0.2), torch.device("cpu"), compiled=False)
    assert trainer.usage("model") == ["tgen", "generate", "--model", "model", "--", "--temperature"]


def test_a_sample_of_pairs_answers_the_first_sentence_held_back(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"国王{i}\tking {i}\n" for i in range(50)), "utf-8")
    for context in (8, 64):
        workspace = Workspace(tmp_path / f"model{context}")
        workspace.create_pairs(path, TrainSettings(**SHAPE, context=context))
        [sample] = samples(run(workspace))
        tokenizer, objective = workspace.open().tokenizer, workspace.open().objective
        assert sample.prompt == tokenizer.decode(objective.corpus.held_source.row(0).tolist())  # type: ignore[attr-defined]
        assert sample.prompt.startswith("国王")
        assert sample.answer


def test_a_sample_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of luck")

    workspace = begin(tmp_path, ENGLISH * 200, context=16)
    monkeypatch.setattr(tgen.train.sample, "make_generator", broken)
    events = run(workspace, every=1)
    assert [event.text for event in events[1:] if isinstance(event, Note)] == ["no sample: out of luck"] * 2
    assert isinstance(events[-2], Evaluated)
    assert events[-2].step == 2
    assert (workspace.load_state() or {})["step"] == 2


def test_a_resumed_run_goes_on_past_the_sample_it_stopped_at(tmp_path: Path) -> None:
    workspace = begin(tmp_path, CHINESE * 200, context=8)
    [before] = samples(run(workspace))
    workspace.change_course(4, None)
    events = run(Workspace(workspace.folder))
    assert [event.step for event in events if isinstance(event, Evaluated)] == [4]
    assert samples(events)[0].prompt == before.prompt


@pytest.fixture(scope="module")
def tokenizers() -> list[Tokenizer]:
    texts = list(LANGUAGES.values())
    return [learn_tokenizer(texts, size, sentences=sentences) for size in (260, 330) for sentences in (False, True)]


@every_language
def test_what_fits_is_a_beginning_in_whole_characters(tokenizers: list[Tokenizer], text: str) -> None:
    text = text.strip()
    for tokenizer in tokenizers:
        sizes = []
        for tokens in range(len(tokenizer.encode(text).ids) + 3):
            shown = fitting(tokenizer, text, tokens)
            assert text.startswith(shown)
            assert not shown or len(tokenizer.encode(shown).ids) <= tokens
            sizes.append(len(shown))
        assert sizes[0] == 0
        assert len(set(sizes)) > 2
        assert sizes[-3:] == [len(text)] * 3
        assert sizes[-4] < len(text)
