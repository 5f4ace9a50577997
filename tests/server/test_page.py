"""The page at /, in a real Chromium: what a person sees and does, by mouse, by keys, in a small window; and what it never does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.browsing import chromium, launched, opened, text, until, write
from tests.server.conftest import Served, serving
from tests.server.test_inspecting import events
from tgen.server.guard import read_access

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason="there is no Chromium")]

NARROW = {"viewport": {"width": 320, "height": 256}}  # 1280 by 1024 at 400 % zoom
Open = Callable[..., "Page"]
SAID = [{"role": "user", "content": "Hello"}]
REFUSED = "Failed to load resource"
# The lowest contrast of a text with what is behind it, and the text.
CONTRAST = """() => {
  const paint = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const linear = (byte) => byte / 255 <= 0.04045 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4;
  const light = (colours) => {
    paint.clearRect(0, 0, 1, 1);
    for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
    const [red, green, blue] = [...paint.getImageData(0, 0, 1, 1).data].map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => element ? [...behind(element.parentElement), getComputedStyle(element).backgroundColor] : [];
  const texts = document.querySelectorAll(".token, .hint, .how, label, button:enabled, th, td, h2, .prompt, .share.drawn span");
  return [...texts].filter((element) => element.textContent.trim() && element.checkVisibility()).map((element) => {
    const [under, over] = [light(behind(element)), light([...behind(element), getComputedStyle(element).color])];
    return [(Math.max(under, over) + 0.05) / (Math.min(under, over) + 0.05), element.outerHTML];
  }).sort((one, other) => one[0] - other[0])[0];
}"""
NAMELESS = """() => [...document.querySelectorAll("button, select, input, textarea, [role=option], [role=tab], canvas")]
  .filter((element) => !element.labels?.length && !element.getAttribute("aria-label") && !element.textContent.trim())
  .map((element) => element.outerHTML)"""
# Texts of a panel that are smaller than 12 pixels, and parts of it that reach beyond the window.
SMALL = """(id) => [...document.querySelectorAll(`#${id} *`)]
  .filter((element) => element.checkVisibility() && !element.childElementCount && element.textContent.trim())
  .filter((element) => parseFloat(getComputedStyle(element).fontSize) < 12).map((element) => element.outerHTML)"""
WIDE = """(id) => [...document.querySelectorAll(`#${id} *`)]
  .filter((element) => element.checkVisibility() && !element.closest(".hidden, thead, .scroll, .line"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth).map((element) => element.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def window(browser: Browser, served: Served) -> Iterator[Open]:
    """Opens the page; at the end, no console had an error and no request went to another host."""
    pages: list[tuple[Page, list[str], bool]] = []

    def show(port: int = served.port, refused: bool = False, **context: Any) -> Page:
        page, faults = opened(browser, port, **context)
        pages.append((page, faults, refused))
        return page

    yield show
    for page, faults, refused in pages:
        page.context.close()
        assert [fault for fault in faults if not (refused and fault.startswith(REFUSED))] == []


def test_a_text_streams_and_each_token_tells_how_it_was_drawn(window: Open, served: Served) -> None:
    page = window()
    page.select_option("#pace", "250")
    page.fill("#knob-seed", "7")
    page.fill("#knob-max_new_tokens", "5")
    page.click("#write")
    counts = []
    for wanted in (1, 3, 5):
        until(page, f"document.querySelectorAll('#tokens > *').length >= {wanted}")
        counts.append(page.locator("#tokens > *").count())
    assert counts[0] < counts[1] < counts[2] == 5
    page.wait_for_selector("#stop:disabled")
    steps = [one for one in events(served, prompt="Once upon a time", seed=7, max_tokens=5) if one["event"] == "Step"]
    assert text(page) == "".join(step["text"] for step in steps)
    for place, step in enumerate(steps):
        page.click(f"#tokens > :nth-child({place + 1})")
        assert page.locator("[role=option][aria-selected=true]").text_content() == step["text"]
        drawn = page.locator("tr.drawn th").text_content()
        assert drawn == step["text"].replace(" ", "␣", 1)
        assert f"{step['uniform']:.4f}" in str(page.text_content("#draw .how"))
        cut = [one["text"] for one in step["candidates"] if one["cut_by"]]
        assert page.locator("td.cut").count() == len(cut)
        assert page.locator(".candidates tbody tr").count() == len(step["candidates"])
    assert float(page.locator(".needle").evaluate("e => e.style.getPropertyValue('--at')")) == pytest.approx(steps[-1]["uniform"])


def test_the_end_of_a_long_text_is_in_sight(window: Open) -> None:
    page = window(viewport={"width": 800, "height": 700})
    write(page, "Once upon a time there was a fox. " * 30, max_new_tokens=12)
    [box, last] = [page.locator(place).bounding_box() for place in ("#text", "#tokens > :last-child")]
    assert box is not None and last is not None
    assert box["y"] <= last["y"] and last["y"] + last["height"] <= box["y"] + box["height"] + 1
    assert page.evaluate("document.querySelector('#text').scrollTop > 0")


def test_a_branch_keeps_what_stands_before_it(window: Open) -> None:
    page = window()
    write(page)
    first = text(page)
    page.click("#tokens > :nth-child(4)")
    kept = "".join(page.locator("#tokens > *").all_text_contents()[:3])
    choice = page.locator(".take").first
    taken = str(choice.get_attribute("aria-label")).removeprefix("Write “").removesuffix("” here instead")
    choice.click()
    until(page, f"document.querySelectorAll('#tokens > *')[3]?.textContent === {json.dumps(taken)}")  # the text before it is gone
    page.wait_for_selector("#stop:disabled")
    assert page.locator("#tokens > *").count() > 10
    assert text(page).startswith(kept + taken)
    page.click("#tokens > :nth-child(4)")
    assert str(page.text_content("#draw h3")).startswith(f"Token 4: {taken.replace(' ', '␣', 1)}")
    assert f"You chose “{taken}” instead." in str(page.text_content("#draw .how"))
    assert page.locator("#branches button").count() == 2
    page.click("#branches button >> nth=0")
    assert text(page) == first
    page.click("#tokens > :nth-child(2)")
    page.click(".again")
    page.wait_for_selector("#stop:disabled")
    until(page, "document.querySelectorAll('#branches button').length === 3")
    assert text(page).startswith(str(page.locator("#tokens > *").first.text_content()))


def test_knobs_change_the_draw(window: Open) -> None:
    page = window()
    page.click("text=No chance")
    write(page)
    page.click("#tokens > :nth-child(1)")
    assert "nothing is drawn" in str(page.text_content("#draw .how"))
    page.click("text=Wild")
    assert page.input_value("#knob-temperature") == "1.4"
    write(page, max_new_tokens=3)
    page.click("#tokens > :nth-child(1)")
    heads = page.locator(".candidates thead th").all_text_contents()
    assert [head for head in heads if head.startswith(("top-", "min-"))] == [], "filters that are off are not shown"
    page.click("summary")
    page.fill("#knob-typical_p", "0.5")
    write(page, max_new_tokens=3)
    page.click("#tokens > :nth-child(1)")
    heads = page.locator(".candidates thead th").all_text_contents()
    assert any(head.startswith("typical-p 0.5") for head in heads), "an option that is declared is a knob"
    page.fill("#knob-temperature", "-1")
    assert page.evaluate("document.querySelector('#ask').checkValidity()") is False
    page.fill("#knob-temperature", "1")


def test_any_layer_and_head(window: Open, served: Served) -> None:
    page, decoder = window(), served.service.models.all[0].checkpoint.spec.decoder
    assert decoder is not None
    write(page, "The king said to his daughter", max_new_tokens=1)
    page.click("#tab-attention")
    page.wait_for_selector("canvas.map")
    assert page.locator("#map-layer option").count() == len(decoder.layers)
    page.select_option("#map-layer", "2")
    until(page, "document.querySelector('canvas').getAttribute('aria-label').includes('layer 2')")
    page.select_option("#map-head", "4")
    until(page, "document.querySelector('canvas').getAttribute('aria-label').includes('head 4')")
    page.click("[role=option].key >> nth=4")
    weights = served.ask("/attention", {"prompt": "The king said to his daughter", "layer": 2, "head": 4})[1]["weights"][4]
    best = page.locator(".looks li").first
    assert str(best.text_content()).endswith(f"token {weights.index(max(weights))}")
    assert f"{100 * max(weights):.0f} %" in str(best.text_content())
    colours = page.locator(".key").evaluate_all("all => all.map(e => Number(e.style.getPropertyValue('--weight')))")
    assert colours[: len(weights)] == pytest.approx([weight / max(weights) for weight in weights], abs=2e-3)
    page.focus("canvas.map")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert "(token 3)" in str(page.text_content(".looks"))
    assert ", token 0" in str(page.text_content(".looks"))
    assert page.locator("canvas.map").evaluate("c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)")


def test_pieces_follow_the_prompt(window: Open, served: Served) -> None:
    page = window()
    page.click("#tab-pieces")
    page.fill("#prompt", "Il était 😀")
    pieces = served.ask("/pieces", {"prompt": "Il était 😀"})[1]["pieces"]
    wanted = [str(one["id"]) for one in pieces]
    until(page, f"document.querySelectorAll('.chip').length === {len(wanted)}")
    assert page.locator(".chip small").all_text_contents() == wanted
    page.click(".chip >> nth=2")
    spelled = " ".join(f"{byte:02x}" for byte in pieces[2]["bytes"])
    assert f"its bytes are {spelled}." in str(page.text_content("#pieces"))


def test_what_other_kinds_of_model_show(window: Open, served: Served) -> None:
    page = window()
    page.select_option("#model", "english-french")
    until(page, "document.querySelector('#knob-temperature').value === '0'")
    write(page, "The cat sleeps.")
    assert text(page).startswith("Le chat")
    page.click("#tokens > :nth-child(1)")
    assert page.locator(".take").count() == 0
    page.click("#tab-attention")
    page.wait_for_selector("#map-kind")
    assert page.locator("#map-kind option").all_text_contents() == ["cross", "encoder", "decoder"]
    page.select_option("#map-kind", "encoder")
    until(page, "document.querySelector('canvas').getAttribute('aria-label').includes('encoder')")
    page.select_option("#model", "bert")
    page.wait_for_selector("#write:disabled")
    until(page, "document.querySelector('canvas').getAttribute('aria-label').includes('4 heads')")
    page.select_option("#model", "talker")
    page.wait_for_selector("#chat-choice:not([hidden])")
    page.click("#tab-draw")
    page.check("#chat")
    write(page, "Hello", max_new_tokens=3)
    steps = [one for one in events(served, model="talker", messages=SAID, seed=7, max_tokens=3) if one["event"] == "Step"]
    shown = (re.sub(r"\A\n+\Z", r"⏎\g<0>", step["text"]) for step in steps)  # a token of line breaks alone would not be seen
    assert text(page) == "".join(shown)


def test_keys_alone_do_everything(window: Open) -> None:
    page = window()
    page.fill("#knob-seed", "7")
    page.fill("#knob-max_new_tokens", "6")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelectorAll('#tokens > *').length === 6")
    page.wait_for_selector("#stop:disabled")
    reached = []
    page.focus("#write")
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('role') || document.activeElement.id"))
    assert "option" in reached
    page.focus("#tokens > [tabindex='0']")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert str(page.text_content("#draw h3")).startswith("Token 2:")
    page.keyboard.press("End")
    assert str(page.text_content("#draw h3")).startswith("Token 6:")
    page.focus("#tab-draw")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-attention"
    assert page.is_visible("#attention")


def test_stop_keeps_what_was_written(window: Open) -> None:
    page = window()
    page.fill("#knob-max_new_tokens", "400")
    page.select_option("#pace", "250")
    page.click("#write")
    until(page, "document.querySelectorAll('#tokens > *').length >= 2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#stop:disabled")
    assert "it was stopped" in str(page.text_content("#state"))
    assert page.locator("#tokens > *").count() >= 2
    assert page.locator("#live").text_content()


def test_errors_are_said(window: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = window(refused=True)
    page.fill("#prompt", "a " * 3000)
    page.click("#write")
    page.wait_for_selector("#problem:not([hidden])")
    assert "the model's context is 1024" in str(page.text_content("#problem"))
    page.fill("#prompt", "a")
    monkeypatch.setattr("tgen.executors.open.find_spec", lambda _: None)
    page.click("#tab-attention")
    page.wait_for_selector("#attention .problem")
    assert "pip install torch" in str(page.text_content("#attention .problem"))


def test_the_page_asks_for_the_key(browser: Browser) -> None:
    """A wrong one is asked for again; a reload remembers the right one, and another window does not."""
    with serving("storyteller", access=read_access("secret", [], "127.0.0.1", private=False)) as locked:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{locked.port}/")
        for given in ("wrong", "secret"):
            page.wait_for_selector("#key[open]")
            page.fill("#key-value", given)
            page.keyboard.press("Enter")
            if given == "wrong":
                page.wait_for_selector("#key-problem:not([hidden])")
        page.wait_for_selector("#knob-seed")
        write(page, max_new_tokens=2)
        assert page.locator("#tokens > *").count() == 2
        page.reload()
        page.wait_for_selector("#knob-seed")
        other = context.new_page()
        other.goto(f"http://127.0.0.1:{locked.port}/")
        other.wait_for_selector("#key[open]")
        context.close()


def test_no_page_of_another_origin_gets_in(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.goto("about:blank")
    script = "async (url) => { try { return (await fetch(url)).status } catch (error) { return error.name } }"
    assert page.evaluate(script, f"http://127.0.0.1:{served.port}/v1/models") == "TypeError"
    page.set_content(f"<iframe src='http://127.0.0.1:{served.port}/'></iframe>")
    page.wait_for_timeout(300)
    assert page.frames[1].locator("#prompt").count() == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(window: Open, scheme: str) -> None:
    """Text stands out by 4.5 to 1 from what is behind it (WCAG 2.2, 1.4.3), and each control has a name."""
    page = window(color_scheme=scheme)
    write(page, max_new_tokens=40)
    page.click("#tokens > :nth-child(4)")
    contrast, where = page.evaluate(CONTRAST)
    assert contrast >= 4.5, where
    assert page.evaluate(NAMELESS) == []


def test_at_400_percent_nothing_is_cut_off(window: Open) -> None:
    page = window(**NARROW)
    write(page)
    page.click("#tokens > :nth-child(4)")
    for tab in ("draw", "attention", "pieces"):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(f"#{tab} :is(table, canvas, ol)")
        assert page.evaluate("document.scrollingElement.scrollWidth") == 320, tab
        assert page.evaluate(SMALL, tab) == []
        assert page.evaluate(WIDE, tab) == []


def test_those_who_want_no_motion_get_none(window: Open) -> None:
    page = window(reduced_motion="reduce")
    page.select_option("#pace", "250")
    page.fill("#knob-max_new_tokens", "3")
    page.click("#write")
    until(page, "document.querySelectorAll('#tokens > *').length >= 2")
    assert page.locator("#draw table").count() == 0, "the draws do not flicker past"
    page.wait_for_selector("#stop:disabled")
    page.click("#tokens > :nth-child(1)")
    assert page.locator(".needle").evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
