"""The page of models is what the registry and the goldens say now."""

from __future__ import annotations

from tests.families.table import KNOWN, PAGE, page
from tgen.families.registry import FAMILIES


def test_the_page_is_what_the_script_writes() -> None:
    assert KNOWN.keys() == FAMILIES.keys(), "name the models that people know, then run: python -m tests.families.table"
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.families.table"
