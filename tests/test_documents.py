"""The learner's page is true: its commands print what it says."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

import pytest

from tests.documents import LEARN, examples, run

NUMBER = re.compile(r"-?\d+\.\d+")
# Another processor rounds the last bits of a logit otherwise: a shade of a map, a last digit.
ALIKE, CLOSE = 0.97, 0.02


@pytest.mark.parametrize(("command", "shown"), examples(LEARN), ids=[command for command, _ in examples(LEARN)])
def test_command_prints_what_the_page_says(command: str, shown: str) -> None:
    found = run(command)
    words, expected = NUMBER.sub("#", found), NUMBER.sub("#", shown)
    assert SequenceMatcher(None, words, expected, autojunk=False).ratio() >= ALIKE, found
    if words == expected:
        for now, then in zip(NUMBER.findall(found), NUMBER.findall(shown), strict=True):
            assert float(now) == pytest.approx(float(then), rel=CLOSE, abs=CLOSE)
