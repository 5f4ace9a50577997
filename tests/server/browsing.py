"""Chromium without a screen, for tests of the page and for its picture. Needs the extra `browser` and a Chromium of the system."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# It shall ask nobody but the server, and need no graphics.
QUIET = [
    *["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    *["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"],
]


def chromium() -> str | None:
    """The path of the system's Chromium, None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser with a profile of its own, which is removed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Browser, port: int, **context: Any) -> tuple[Page, list[str]]:
    """The page of a server in a window of its own; the list gets each error on its console and each request to another host."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
    faults: list[str] = []
    own = f"http://127.0.0.1:{port}/"
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(own) else faults.append(f"asked {request.url}"))
    page.goto(own)
    page.wait_for_selector("#knob-seed")
    return page, faults


def until(page: Page, condition: str) -> None:
    """Wait until an expression is true; the page's policy forbids Playwright's own way."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def write(page: Page, prompt: str = "Once upon a time", **knobs: float) -> None:
    """Let the page write a text to its end."""
    page.fill("#prompt", prompt)
    for name, value in {"seed": 7, "max_new_tokens": 20, **knobs}.items():
        page.fill(f"#knob-{name}", str(value))
    page.click("#write")
    page.wait_for_selector("#stop:disabled")
    until(page, "document.querySelectorAll('#tokens > *').length > 0")


def text(page: Page) -> str:
    """What was written, with signs in place of white space that cannot be seen."""
    return str(page.text_content("#tokens"))
