"""The goldens stay small: every clone of the repository holds them."""

from __future__ import annotations

from tests.conftest import GOLDEN


def test_all_goldens_together_have_less_than_six_megabytes() -> None:
    files = [path for path in GOLDEN.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert sum(path.stat().st_size for path in files) < 6_000_000
