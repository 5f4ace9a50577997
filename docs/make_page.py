"""Draws docs/page.png: the page of `tgen serve` with a text and the draw of one of its tokens, in Chromium.

Run it as a module from the root of the repository, because it uses code of the tests.
"""

from __future__ import annotations

from pathlib import Path

from tests.server.browsing import launched, opened, write
from tests.server.conftest import serving

PROMPT, CHOSEN = "The old king had three sons, and", 4
KNOBS = {"seed": 12, "max_new_tokens": 60, "top_k": 9, "top_p": 0.9, "min_p": 0.2}


def main() -> None:
    """Write the picture beside this script."""
    with serving("storyteller") as served, launched() as browser:
        page, faults = opened(browser, served.port, viewport={"width": 1280, "height": 1000})
        write(page, PROMPT, **KNOBS)
        page.click(f"#tokens > :nth-child({CHOSEN})")
        page.mouse.move(640, 20)
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)  # the needle moves
        page.screenshot(path=str(Path(__file__).with_name("page.png")))
        assert faults == [], faults


if __name__ == "__main__":
    main()
