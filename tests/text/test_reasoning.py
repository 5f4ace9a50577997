"""Reasoning is told from the answer, however the text is cut into pieces."""

from __future__ import annotations

import itertools

import pytest

from tgen.events import Event, Finished, Note, Piece, Special, Token, TokenScore
from tgen.text.reasoning import Reasoning

SEED = "{% if x %}<seed:think>{% endif %}"
END = Finished(0, "stop", 1, 0, 0)


def cut(text: str, size: int) -> list[Event]:
    return [*(Piece(0, text[start : start + size]) for start in range(0, len(text), size)), END]


def told(events: list[Event], reasoning: Reasoning) -> list[tuple[str, bool]]:
    """The text by kind; each kind in one."""
    pieces = [one for event in events for one in reasoning.feed(event) if isinstance(one, Piece)]
    return [("".join(one.text for one in group), kind) for kind, group in itertools.groupby(pieces, lambda one: one.reasoning)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("template", "prompt", "parts"),
    [
        ("", "", [("<think>\nhm < </thin\n</think>\n\n", True), ("the answer", False)]),
        ("", "", [("\n <think>hm</think>", True)]),
        ("", "", [("<think>not closed </thi", True)]),
        ("", "", [("a <think> tag, <b>\n <think>\n<thin", False)]),
        ("", "", [("first\n", False), ("<think>hm</think> ", True), ("then\n", False), ("<think></think>", True)]),
        ("", "", [("<think>a</think>\n<think>b</think>", True), ("c", False)]),
        ("", "...<think>\n", [("hm</think>\n", True), ("c", False)]),
        ("", "...<think>\n\n</think>\n\n", [("c", False)]),
        ("", "", [("<seed:think>c</seed:think>", False)]),
        (SEED, "", [("<seed:think>hm</think></seed:think>", True), ("c", False)]),
        ("", "", [(" \n", False)]),
        ("", "", [("<", False)]),
    ],
)
def test_text_between_tags(size: int, template: str, prompt: str, parts: list[tuple[str, bool]]) -> None:
    assert told(cut("".join(text for text, _ in parts), size), Reasoning(template, prompt)) == parts


def test_channels_of_gpt_oss() -> None:
    events: list[Event] = []
    for special, text in (
        ("<|channel|>", "analysis"), ("<|message|>", "Hm, final."), ("<|end|>", ""), ("<|start|>", "assistant"),
        ("<|channel|>", "fi"), ("", "nal"), ("<|message|>", "The answer"),
    ):  # fmt: skip
        events += [Special(0, special)] if special else []
        events += [Piece(0, text)]
    assert told([*events, END], Reasoning()) == [("analysisHm, final.assistantfinal", True), ("The answer", False)]


def test_tags_that_are_special_tokens() -> None:
    events: list[Event] = [Special(0, "[THINK]"), Piece(0, "hm </think>"), Special(0, "[/THINK]"), Piece(0, "\nyes"), END]
    assert told(events, Reasoning()) == [("hm </think>\n", True), ("yes", False)]
    begun: list[Event] = [Piece(0, "hm"), Special(0, "[/THINK]"), Piece(0, "yes"), END]
    assert told(begun, Reasoning("[/THINK]", "[INST]x[/INST][THINK]")) == [("hm", True), ("yes", False)]


def test_samples_have_their_own_state_and_other_events_pass() -> None:
    reasoning = Reasoning()
    events: list[Event] = [Piece(0, "<think>a"), Piece(1, "b"), Note("n"), END]
    found = [one for event in events for one in reasoning.feed(event)]
    assert found == [Piece(0, "<think>", (), True), Piece(0, "a", (), True), Piece(1, "b"), Note("n"), END]


def test_a_tag_inside_a_line_is_text_about_it() -> None:
    assert told([Piece(0, "Write "), Piece(0, "<think>"), Piece(0, "."), END], Reasoning()) == [("Write <think>.", False)]


def test_no_token_is_lost() -> None:
    tokens = [Token(TokenScore(number, text, -1.0)) for number, text in enumerate(["<th", "ink>", "a</think>\n\n", "b", "\n<th"])]
    reasoning = Reasoning()
    events: list[Event] = [*(Piece(0, token.score.text, (token,)) for token in tokens), Piece(0, "", (tokens[0],)), END]
    found = [one for event in events for one in reasoning.feed(event) if isinstance(one, Piece)]
    assert [token for piece in found for token in piece.tokens] == [*tokens, tokens[0]]
    assert "".join(piece.text for piece in found) == "<think>a</think>\n\nb\n<th"
    assert [*reasoning.feed(Piece(1, "", (tokens[0],))), *reasoning.feed(Finished(1, "stop", 1, 0, 0))][0] == Piece(1, "", (tokens[0],))
